/** The result table as CSV, with the columns and the numbers of `anna-lite infer -o results.csv`. */

import { flagNames } from "./flags.ts";
import { general } from "./format.ts";
import type { Row } from "./inference.ts";
import type { Label } from "./model.ts";

/** Values keep seven significant digits, as many as the network's float32 has. */
const DIGITS = 7;

/** Return the names of the columns. */
export function columnNames(labels: readonly Label[]): string[] {
  const ofLabels = labels.flatMap(({ name }) => [name, `e_${name}`]);
  return ["file", "hdu", "row", "id", ...ofLabels, "snr", "coverage", "flags", "flag_bits", "message"];
}

/** Return the table as CSV. */
export function toCsv(rows: readonly Row[], labels: readonly Label[]): string {
  const lines = [columnNames(labels), ...rows.map(cells)];
  return lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
}

function cells(row: Row): string[] {
  const { file, hdu, row: line } = row.source;
  const ofLabels = Array.from(row.values).flatMap((value, i) => [value, row.errors[i]]);
  return [
    file,
    hdu === null ? "" : String(hdu),
    line === null ? "" : String(line),
    row.id,
    ...[...ofLabels, row.snr, row.coverage].map((value) => general(value, DIGITS)),
    flagNames(row.flags).join(" "),
    String(row.flags),
    row.message,
  ].map(printable);
}

/** Replace what no table can hold: line ends, control characters. */
function printable(cell: string): string {
  return cell.replace(/[\p{C}\p{Z}]/gu, " ");
}

function quoted(cell: string): string {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}
