/**
 * Text: columns with or without a header, CSV, IRAF's wtextimage, Libre-Esprit's .s files;
 * the counterpart of `anna_onnx.readers.text`.
 */

import { NoWavelengthError, ReadError } from "../errors.ts";
import { NOTHING_KNOWN, type Facts, type Source, type Spectrum } from "../spectrum.ts";
import { assemble } from "./assembly.ts";
import { keyOf, mediumOf, understand, unitOf, type Column, type Roles } from "./columns.ts";
import { factsFrom, irafMedium, noted, spokenMedium } from "./facts.ts";
import { Header } from "./fits.ts";
import { median } from "../numeric.ts";
import { isNumber, parseNumber } from "./number.ts";
import { isWavelengthUnit, toAngstrom } from "./units.ts";

const CARD = 80;
const MAX_HEADER_LINES = 5000;
/** Numbers in a line of a table, and lines that are columns when they hold more. */
const [LONGEST_ROW, MOST_LINES] = [100, 5];
const COMMENT = /^\s*(#|%|;|!|\\|\/\/|\*|@)+\s?/;
const STATED = /^\W*(?:object|target|star|name)\s*[=:]\s*(.+?)\s*$/i;
const MEDIUM = /wav|lambda|medium|air.*vac/i;
const OTHER_AXIS =
  /vel(ocity|o)?\b|\bv_?(lsr|rad|hel\w*)\b|km\/s|freq\w*|[kMGT]?Hz\b|pixel|channel|wave_?num\w*|\bcm\^?-1|\b(time|date|phase|epoch|[a-z]*jd)\b/i;
const UNIT =
  /\b(?:wav\w*|lambda)[^\p{L}\p{N}_]{0,3}(?:in\s+)?(angstroms?|[nu]m|nanomet\w+|microns?|[µμ]m)(?![\p{L}\p{N}_])/iu;
const NUMBERED = /^\W*(?:col(?:umn)?\W?)?(\d{1,3})(?=\W)\s*[:.)=-]?\s*([a-z]\w*)\s*(?:[[(]\s*(\w+))?/i;
/** A double precision number of Fortran, 1.5D-03. */
const FORTRAN = /(?<=[\d.])[dD](?=[+-]\d)/g;
/** Of the best and worst spectra; normalised flux, S/N or a raw flux are farther from the flux than an error is. */
const ERROR_TO_FLUX = [1e-5, 3];
const TYPES = new Set(["double", "float", "real", "int", "integer", "long", "short", "char", "date", "string", ""]);
const MISSING = ["", "nan", "null", "none", "indef", "--", "---", "n/a", "na", "masked", '""'];
const WORDS = new Map([...MISSING.map((word) => [word, NaN] as const), ["true", 1], ["false", 0]]);
/** What the Gaia archive's RVS spectra have: 846-870 nm in steps of 0.01. */
const RVS_PIXELS = 2401;

/** Where the numbers are. */
interface Layout {
  /** The lines before the first number. */
  readonly head: readonly string[];
  readonly body: readonly string[];
  /** null for blanks. */
  readonly delimiter: string | null;
  readonly nColumn: number;
}

/** Read a text file: one spectrum. */
export function readText(path: string, text: string): Spectrum[] {
  const layout = findNumbers(path, text.replace(FORTRAN, "e").split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/));
  const { numbers, notes } = readNumbers(path, layout);
  if (numbers.length > LONGEST_ROW && numbers[0].length <= MOST_LINES) {
    const lines = Array.from(numbers[0], (_, line) => Float64Array.from(numbers, (column) => column[line]));
    return assembled(path, { ...layout, head: [], nColumn: lines.length }, lines, [
      ...notes,
      "each column in a line of its own",
    ]);
  }
  return assembled(path, layout, numbers, notes);
}

function assembled(path: string, layout: Layout, numbers: Float64Array[], notes: readonly string[]): Spectrum[] {
  const source: Source = { file: path, hdu: null, row: null };
  if (layout.head[0]?.startsWith("***")) return [libreEsprit(layout, numbers, source)];
  const cards = cardsOf(layout.head);
  const stated = noted(cards ? factsFrom(cards) : fromComments(layout.head), ...notes);
  const columns = cards ? byPosition(numbers) : namedColumns(path, layout, numbers);
  const roles = understand(columns, path);
  const medium = mediumOf(roles.wavelength, columns) ?? stated.medium;
  const { wavelength, notes: unitNotes } = wavelengths(roles, path);
  const known = asRvs(wavelength, noted({ ...stated, medium }, ...roles.notes, ...unitNotes));
  const flux = roles.flux.values;
  const bad = badOf(roles.mask);
  const spectrum = assemble({ wavelength, flux, sigma: sigmaOf(roles), bad }, known, source);
  return [cards?.has("WAT0_001") ? { ...spectrum, ...irafMedium(spectrum, spectrum.wavelength) } : spectrum];
}

/** Find the first of the lines of numbers: two in a row with as many columns. */
function findNumbers(path: string, lines: readonly string[]): Layout {
  let previous: { at: number; delimiter: string | null; nColumn: number } | null = null;
  for (let at = 0; at < Math.min(lines.length, MAX_HEADER_LINES); at++) {
    const { delimiter, nColumn } = shapeOf(lines[at]);
    if (nColumn < 2 || COMMENT.test(lines[at])) continue;
    if (previous?.at === at - 1 && previous.delimiter === delimiter && previous.nColumn === nColumn) {
      const body = lines.slice(at - 1).filter((line) => line.trim());
      return { head: lines.slice(0, at - 1), body, delimiter, nColumn };
    }
    previous = { at, delimiter, nColumn };
  }
  if (lines.slice(0, 1000).filter((line) => isNumber(line.trim())).length > 1)
    throw new NoWavelengthError(`${path}: one column of numbers, needed wavelength and flux`);
  const shown = (lines.find((line) => line.trim()) ?? "").slice(0, 60);
  throw new ReadError(`${path}: no columns of numbers found; the text begins with '${shown}'`);
}

/** Return the delimiter and the number of columns of a line of numbers, 0 if it is none. */
function shapeOf(line: string): { delimiter: string | null; nColumn: number } {
  for (const delimiter of [null, ",", ";", "|"]) {
    if (delimiter === null && /[,;|]/.test(line)) continue;
    const fields = split(line, delimiter);
    const isOne = (field: string) => isNumber(field) || WORDS.has(field.toLowerCase());
    if (fields.length >= 2 && isNumber(fields[0]) && fields.every(isOne)) return { delimiter, nColumn: fields.length };
  }
  return { delimiter: null, nColumn: 0 };
}

function split(line: string, delimiter: string | null): string[] {
  const whole = line.trim();
  if (delimiter === null) return whole ? whole.split(/\s+/) : [];
  const fields = whole.split(delimiter).map((field) => field.trim().replace(/^["']+|["']+$/g, ""));
  if (delimiter !== "|" || fields.length < 3) return fields;
  return fields.slice(fields[0] ? 0 : 1, fields.at(-1) ? undefined : -1);
}

/** Return the columns of numbers, and notes. */
function readNumbers(path: string, layout: Layout): { numbers: Float64Array[]; notes: string[] } {
  const rows = layout.body.filter((line) => !COMMENT.test(line)).map((line) => split(line, layout.delimiter));
  const good = rows.filter(
    (fields) =>
      fields.length === layout.nColumn && fields.every((field) => isNumber(field) || WORDS.has(field.toLowerCase())),
  );
  const lost = rows.length - good.length;
  if (good.length < 2 || good.length < 0.9 * rows.length)
    throw new ReadError(`${path}: ${lost} of ${rows.length} lines are not ${layout.nColumn} numbers`);
  const numbers = Array.from({ length: layout.nColumn }, (_, column) =>
    Float64Array.from(good, (fields) => parseNumber(fields[column]) ?? WORDS.get(fields[column].toLowerCase()) ?? NaN),
  );
  return { numbers, notes: lost ? [`${lost} lines that are no numbers left out`] : [] };
}

/** Return the FITS cards that IRAF's wtextimage writes before the numbers, or null. */
function cardsOf(head: readonly string[]): Header | null {
  const cards = head.filter((line) => line[8] === "=").map((line) => line.slice(0, CARD).padEnd(CARD));
  const ends = head.some((line) => line.trim() === "END");
  return cards.length > 3 && ends ? new Header(cards.join("")) : null;
}

/** Return what comment lines state. */
function fromComments(head: readonly string[]): Facts {
  let facts = NOTHING_KNOWN;
  for (const line of head.slice(0, 200)) {
    const stated = STATED.exec(line.replace(COMMENT, ""));
    if (stated) facts = { ...facts, id: stated[1].slice(0, 80) };
    const medium = MEDIUM.test(line) ? spokenMedium(line) : null;
    if (medium) facts = noted({ ...facts, medium }, `medium ${medium}, from the comment '${line.trim().slice(0, 60)}'`);
  }
  return facts;
}

/**
 * Return the columns, named by the header or else by position: of the header lines with
 * a word for each column the last one counts from which the columns are understood.
 */
function namedColumns(path: string, layout: Layout, numbers: Float64Array[]): Column[] {
  const lines = layout.head.slice(-20).map((line) => headerFields(line, layout));
  const wordy = lines.filter((fields) => fields.some((field) => !TYPES.has(field.toLowerCase()))).reverse();
  const headers = wordy.map((names, i) => ({ names, units: unitsIn(wordy[i - 1]) }));
  for (const { names, units } of [...numbered(layout), ...headers]) {
    const columns = numbers.map((values, j) => ({ name: names[j], unit: units?.[j] ?? "", values }));
    try {
      understand(columns, path);
      return columns;
    } catch (error) {
      if (!(error instanceof ReadError)) throw error;
      if (OTHER_AXIS.test(names.join(" ")))
        throw new NoWavelengthError(`${path}: columns ${names.join(", ")}: needed wavelengths`);
    }
  }
  const last = layout.head.at(-1) ?? "";
  const first = last.replace(COMMENT, "").trim().split(/\s+/)[0];
  if (OTHER_AXIS.exec(first)?.index === 0 && !/[=:]/.test(last))
    throw new NoWavelengthError(`${path}: columns '${last.trim().slice(0, 60)}': needed wavelengths`);
  const below = headers.map(({ units }) => units?.[0] ?? "").find(isWavelengthUnit);
  const said = layout.head.slice(-200).map((line) => UNIT.exec(line)?.[1]);
  return byPosition(numbers, below ?? said.find((unit) => unit !== undefined) ?? "");
}

/** Return the words of a header line, one a column, parted as in IPAC tables, by tabs, or as the numbers are. */
function headerFields(line: string, layout: Layout): string[] {
  const fields = ["|", "\t", layout.delimiter].map((delimiter) => split(line.replace(COMMENT, ""), delimiter));
  return fields.find((found) => found.length === layout.nColumn && !found.every(isNumber)) ?? [];
}

/** Return the names and units that lines such as `# Column 1: wavelength (nm)` give to all columns. */
function numbered(layout: Layout): { names: string[]; units: string[] }[] {
  const named = new Map<number, { name: string; unit: string }>();
  for (const line of layout.head.slice(-200)) {
    const [, at, name, unit = ""] = NUMBERED.exec(line) ?? [];
    if (at !== undefined) named.set(Number(at), { name, unit });
  }
  const columns = Array.from({ length: layout.nColumn }, (_, i) => named.get(i + 1));
  if (named.size !== layout.nColumn || !columns.every((column) => column !== undefined)) return [];
  const unitOf = (unit: string) => (isWavelengthUnit(unit) || OTHER_AXIS.test(unit) ? unit : "");
  return [{ names: columns.map(({ name }) => name), units: columns.map(({ unit }) => unitOf(unit)) }];
}

/** Return the units in a line below the names, if they are units. */
function unitsIn(fields: readonly string[] | undefined): string[] | null {
  if (!fields?.some(isWavelengthUnit)) return null;
  return fields.map((field) => field.replace(/^[()[\]]+|[()[\]]+$/g, ""));
}

/** Return wavelength, flux, and, when it can be one, error. */
function byPosition(numbers: readonly Float64Array[], unit = ""): Column[] {
  const isError = numbers.length > 2 && mayBeError(numbers[2], numbers[1]);
  const name = (i: number) => ["wavelength", "flux", isError ? "error" : "column3"][i] ?? `column${i + 1}`;
  return numbers.map((values, i) => ({ name: name(i), unit: i === 0 ? unit : "", values }));
}

/** Return whether numbers beside a flux may be its error: not negative, no flags or counts, of a likely size. */
function mayBeError(values: Float64Array, flux: Float64Array): boolean {
  const known = values.filter(Number.isFinite);
  const seen = flux.filter(Number.isFinite).map(Math.abs);
  if (!known.length || !seen.length || known.some((value) => value < 0) || known.every(Number.isInteger)) return false;
  const [lowest, highest] = ERROR_TO_FLUX.map((ratio) => ratio * median(seen));
  return lowest <= median(known) && median(known) <= highest;
}

function wavelengths(roles: Roles, where: string): { wavelength: Float64Array; notes: string[] } {
  const { wavelength, log } = roles;
  if (log === null) return toAngstrom(wavelength.values, unitOf(wavelength), where);
  const middle = wavelength.values[wavelength.values.length >> 1];
  const base = middle > 5.5 && middle < 12 ? Math.E : log; // 10**5.5 A are 32 micron
  const values = wavelength.values.map((value) => base ** value);
  const found = toAngstrom(values, unitOf(wavelength), where, "Angstrom");
  return base === log ? found : { ...found, notes: [...found.notes, "natural logarithms, from their size"] };
}

function sigmaOf({ error, kind }: Roles): Float64Array | null {
  if (error === null || kind === "sigma") return error && error.values;
  if (kind === "ivar") return error.values.map((value) => (value > 0 ? 1 / Math.sqrt(value) : Infinity));
  return error.values.map((value) => (value > 0 ? Math.sqrt(value) : NaN));
}

function badOf(mask: Column | null): Uint8Array | null {
  if (mask === null) return null;
  const good = keyOf(mask) === "dataqual" ? 1 : 0; // CALSPEC writes 1 for good
  return Uint8Array.from(mask.values, (value) => ((good ? value === 0 : value !== 0) ? 1 : 0));
}

/** Add what is known when the wavelengths are those of Gaia's RVS, unless the file says otherwise. */
function asRvs(wavelength: Float64Array, facts: Facts): Facts {
  const [first, last] = [wavelength[0], wavelength[wavelength.length - 1]];
  if (wavelength.length !== RVS_PIXELS || Math.abs(first - 8460) > 1e-6 || Math.abs(last - 8700) > 1e-6) return facts;
  if (facts.medium === "air" || !["unknown", "rest"].includes(facts.frame)) return facts;
  return noted(
    { ...facts, medium: "vacuum", frame: "rest", resolution: facts.resolution ?? 11500 },
    "Gaia RVS mean spectrum: vacuum, rest frame, R = 11500",
  );
}

/** Read a .s file of ESPaDOnS and NARVAL (Donati et al. 1997, MNRAS 291, 658): nm, intensity, (Stokes,) error. */
function libreEsprit(layout: Layout, numbers: readonly Float64Array[], source: Source): Spectrum {
  const id = layout.head[0]
    .replace(/^[* \t\r]+|[* \t\r]+$/g, "")
    .replace(/^Reduced spectrum of/, "")
    .replace(/^[ '"]+|[ '"]+$/g, "");
  const facts: Facts = {
    ...NOTHING_KNOWN,
    medium: "air",
    frame: "barycentric",
    id,
    notes: ["Libre-Esprit: nm, air, heliocentric"],
  };
  const wavelength = numbers[0].map((value) => value * 10);
  return assemble(
    { wavelength, flux: numbers[1], sigma: numbers.length > 2 ? numbers[numbers.length - 1] : null },
    facts,
    source,
  );
}
