/**
 * Text: columns with or without a header, CSV, IRAF's wtextimage, Libre-Esprit's .s files;
 * the counterpart of `anna_onnx.readers.text`.
 */

import { NoWavelengthError, ReadError } from "../errors.ts";
import { NOTHING_KNOWN, describe, type Facts, type Reading, type Source, type Spectrum } from "../spectrum.ts";
import { assemble, attempt } from "./assembly.ts";
import {
  findWavelength,
  keyOf,
  mediumOf,
  understand,
  unitOf,
  NO_FLUX,
  withNumbers,
  type Cells,
  type Column,
  type ErrorKind,
  type Roles,
} from "./columns.ts";
import { factsFrom, inMedium, irafMedium, noted, spokenMedium } from "./facts.ts";
import { Header } from "./fits.ts";
import { differences, median, quantile } from "../numeric.ts";
import { isNumber, parseNumber } from "./number.ts";
import { isWavelengthUnit, toAngstrom } from "./units.ts";

const CARD = 80;
const MAX_HEADER_LINES = 5000;
/** Characters of a header line that are looked at. */
const MAX_LINE = 2000;
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
const DECIMAL_COMMA = /(?<=\d),(?=\d)/g;
/** A double precision number of Fortran, 1.5D-03. */
const FORTRAN = /(?<=[\d.])[dD](?=[+-]\d)/g;
/** Of the best and worst spectra; normalised flux, S/N or a raw flux are farther from the flux than an error is. */
const ERROR_TO_FLUX = [1e-5, 3];
/** Of wavelengths; and of what is constant but for rounding. */
const [LONG_RANGE, SAME_FLUX] = [1.1, 1.05];
/** Of the spectrographs whose files are Libre-Esprit's, nm. */
const LIBRE_ESPRIT = [300, 1100];
const TYPES = new Set(["double", "float", "real", "int", "integer", "long", "short", "char", "date", "string", ""]);
const MAGNITUDE = /(^|_)(ab|st|vega)?_?mag(nitude)?s?(_|$)/;
/** No names of columns. */
const PROSE = new Set("air and are as at by corrected for from in is of on the to vac vacuum was with".split(" "));
const MISSING = ["", "nan", "null", "none", "indef", "--", "---", "n/a", "na", "masked", '""'];
const WORDS = new Map([...MISSING.map((word) => [word, NaN] as const), ["true", 1], ["false", 0]]);
/** Names of columns that tell the star of a line, the best first, and its order. */
const ID = "object target targetid source_id sdss_id obsid id name star sobject_id uid obj".split(" ");
const ORDER = "sporder order echelle_order orders".split(" ");
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
  /** Columns, from 0, that hold words. */
  readonly words: ReadonlySet<number>;
  readonly notes: readonly string[];
}

/** What the columns are, and what was assumed of them. */
interface Named {
  readonly columns: Column[];
  readonly notes: readonly string[];
}

/** Read a text file: one spectrum, or one for each star or order that a column tells. */
export function readText(path: string, text: string): Reading[] {
  const layout = findNumbers(path, text.replace(FORTRAN, "e").split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/));
  const { cells, notes } = readCells(path, layout);
  if (cells.length > LONGEST_ROW && cells[0].values.length <= MOST_LINES && !layout.words.size) {
    const lines = Array.from(cells[0].values, (_, line) => ({
      values: Float64Array.from(cells, ({ values }) => values[line]),
      words: null,
    }));
    return assembled(path, { ...layout, head: [], nColumn: lines.length }, lines, [
      ...notes,
      "each column in a line of its own",
    ]);
  }
  return assembled(path, layout, cells, notes);
}

function assembled(path: string, layout: Layout, cells: readonly Cells[], notes: readonly string[]): Reading[] {
  if (isLibreEsprit(layout, cells)) return [libreEsprit(layout, cells, { file: path, hdu: null, row: null })];
  const cards = cardsOf(layout.head);
  const { columns, notes: more } = cards ? byPosition(layout, cells) : namedColumns(path, layout, cells);
  const stated = noted(cards ? factsFrom(cards) : fromComments(layout.head), ...layout.notes, ...notes, ...more);
  const roles = withNumbers(understand(columns, path), path);
  const medium = mediumOf(roles.wavelength, columns);
  const facts = medium ? inMedium(stated, medium) : stated;

  /** Read the spectrum of one star or order. */
  function piece(source: Source, { wavelength: stored, flux, error, mask, ...rest }: Roles): Spectrum {
    const { wavelength, notes: unitNotes } = wavelengths(stored, rest.log, describe(source));
    const named = { ...facts, id: (source.row === null ? onlyName(columns) : nameOf(source.row, columns)) ?? facts.id };
    const known = asRvs(wavelength, noted(named, ...rest.notes, ...unitNotes));
    const sigma = sigmaOf(error, rest.kind);
    const spectrum = assemble({ wavelength, flux: flux.values, sigma, bad: badOf(mask) }, known, source);
    return cards?.has("WAT0_001") ? { ...spectrum, ...irafMedium(spectrum, spectrum.wavelength) } : spectrum;
  }

  const pieces = piecesOf(columns);
  return pieces.map((lines) => {
    const source = { file: path, hdu: null, row: pieces.length > 1 ? lines[0] : null };
    return attempt(source, () => piece(source, atLines(roles, lines)));
  });
}

/**
 * Return the lines of each star or order, as far as columns tell them. A column whose values do not repeat numbers
 * the pixels.
 */
function piecesOf(columns: readonly Column[]): number[][] {
  const nLine = columns[0].values.length;
  const labels = columns
    .filter((column) => [...ID, ...ORDER].includes(keyOf(column)))
    .map(({ values, words }): ArrayLike<string | number> & Iterable<string | number> => words ?? values)
    .filter((cells) => 2 * new Set<string | number>(cells).size <= nLine);
  const pieces = new Map<string, number[]>();
  for (let line = 0; line < nLine; line++) {
    const key = JSON.stringify(labels.map((cells) => cells[line]));
    const lines = pieces.get(key);
    if (lines) lines.push(line);
    else pieces.set(key, [line]);
  }
  return Array.from(pieces.values());
}

function atLines(roles: Roles, lines: readonly number[]): Roles {
  const { wavelength, flux, error, mask } = roles;
  const at = (column: Column): Column => ({
    ...column,
    values: Float64Array.from(lines, (line) => column.values[line]),
  });
  return { ...roles, wavelength: at(wavelength), flux: at(flux), error: error && at(error), mask: mask && at(mask) };
}

/** Return the name of the star of a line, null if no column tells it. */
function nameOf(line: number, columns: readonly Column[]): string | null {
  const name = ID.find((key) => columns.some((column) => keyOf(column) === key));
  const column = columns.find((one) => keyOf(one) === name);
  if (column === undefined) return null;
  const text = column.words?.[line] ?? String(column.values[line]);
  return text.toLowerCase() === "nan" ? "" : text;
}

/** Return the name that a column gives to all lines, or null. */
function onlyName(columns: readonly Column[]): string | null {
  const names = new Set(Array.from(columns[0].values.keys(), (line) => nameOf(line, columns)));
  return names.size === 1 ? [...names][0] : null;
}

/** Find the first of the lines of numbers, with decimal commas or words among them if need be. */
function findNumbers(path: string, lines: readonly string[]): Layout {
  const found =
    firstRows(lines, shapeOf) ?? withPoints(firstRows(lines, shapeWithCommas)) ?? firstRows(lines, shapeWithWords);
  if (found !== null) return found;
  const first = lines.slice(0, 1000);
  if (first.filter((line) => isNumber(line.trim())).length > 1)
    throw new NoWavelengthError(`${path}: one column of numbers, needed wavelength and flux`);
  if (first.some((line) => shapeOf(line).nColumn && !COMMENT.test(line)))
    throw new ReadError(`${path}: no two lines of as many numbers after one another, needed one a pixel`);
  const shown = (lines.find((line) => line.trim()) ?? "").slice(0, 60);
  throw new ReadError(`${path}: no columns of numbers found; the text begins with '${shown}'`);
}

function withPoints(layout: Layout | null): Layout | null {
  if (layout === null) return null;
  const body = layout.body.map((line) => line.replace(DECIMAL_COMMA, "."));
  return { ...layout, body, notes: ["commas in numbers taken as decimal points"] };
}

/** How a line parts into columns, none if it holds no numbers. */
interface Shape {
  readonly delimiter: string | null;
  readonly nColumn: number;
  readonly words: readonly number[];
}

const SHAPELESS: Shape = { delimiter: null, nColumn: 0, words: [] };

/** Find the first two lines in a row with as many columns. */
function firstRows(lines: readonly string[], shape: (line: string) => Shape): Layout | null {
  let previous: (Shape & { at: number }) | null = null;
  for (let at = 0; at < Math.min(lines.length, MAX_HEADER_LINES); at++) {
    const { delimiter, nColumn, words } = shape(lines[at]);
    if (nColumn < 2 || COMMENT.test(lines[at])) continue;
    if (previous?.at === at - 1 && previous.delimiter === delimiter && previous.nColumn === nColumn) {
      const body = lines.slice(at - 1).filter((line) => line.trim());
      const ofWords = new Set([...words, ...previous.words]);
      return { head: lines.slice(0, at - 1), body, delimiter, nColumn, words: ofWords, notes: [] };
    }
    previous = { at, delimiter, nColumn, words };
  }
  return null;
}

/** Return the shape of a line of numbers. */
function shapeOf(line: string): Shape {
  for (const delimiter of [null, ",", ";", "|"]) {
    if (delimiter === null && /[,;|]/.test(line)) continue;
    const fields = split(line, delimiter);
    if (fields.length >= 2 && isNumber(fields[0]) && fields.every(isCell))
      return { delimiter, nColumn: fields.length, words: [] };
  }
  return SHAPELESS;
}

/** Return the shape of a line of numbers with decimal commas, parted by blanks, tabs or semicolons. */
function shapeWithCommas(line: string): Shape {
  const points = line.replace(DECIMAL_COMMA, ".");
  return points === line || line.includes(".") || points.includes(",") ? SHAPELESS : shapeOf(points);
}

/** Return the shape of a line of which two columns or more hold numbers. */
function shapeWithWords(line: string): Shape {
  const delimiter = [",", ";", "|"].find((mark) => line.includes(mark)) ?? null;
  const fields = split(line, delimiter);
  if (fields.length > LONGEST_ROW || fields.filter(isNumber).length < 2) return SHAPELESS;
  const words = Array.from(fields.keys()).filter((i) => !isCell(fields[i]));
  return { delimiter, nColumn: fields.length, words };
}

/** Return whether a field is a number, or a word that stands for one. */
function isCell(field: string): boolean {
  return isNumber(field) || WORDS.has(field.toLowerCase());
}

function split(line: string, delimiter: string | null): string[] {
  const whole = line.trim();
  if (delimiter === null) return whole ? whole.split(/\s+/) : [];
  const fields = whole.split(delimiter).map((field) => field.trim().replace(/^["']+|["']+$/g, ""));
  if (delimiter !== "|" || fields.length < 3) return fields;
  return fields.slice(fields[0] ? 0 : 1, fields.at(-1) ? undefined : -1);
}

/** Return what the columns hold, and notes. */
function readCells(path: string, layout: Layout): { cells: Cells[]; notes: string[] } {
  const rows = layout.body.filter((line) => !COMMENT.test(line)).map((line) => split(line, layout.delimiter));
  const good = rows.filter(
    (fields) => fields.length === layout.nColumn && fields.every((field, i) => layout.words.has(i) || isCell(field)),
  );
  const lost = rows.length - good.length;
  if (good.length < 2 || good.length < 0.9 * rows.length)
    throw new ReadError(`${path}: ${lost} of ${rows.length} lines are not ${layout.nColumn} numbers`);
  const number = (field: string) => parseNumber(field) ?? WORDS.get(field.toLowerCase()) ?? NaN;
  const cells = Array.from({ length: layout.nColumn }, (_, column) => ({
    values: Float64Array.from(good, (fields) => number(fields[column])),
    words: layout.words.has(column) ? good.map((fields) => fields[column]) : null,
  }));
  return { cells, notes: lost ? [`${lost} lines that are no numbers left out`] : [] };
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
  for (const line of beginnings(head.slice(0, 200))) {
    const stated = STATED.exec(line.replace(COMMENT, ""));
    if (stated) facts = { ...facts, id: stated[1].slice(0, 80) };
    const medium = MEDIUM.test(line) ? spokenMedium(line) : null;
    if (medium && medium !== "unknown")
      facts = noted({ ...facts, medium }, `medium ${medium}, from the comment '${line.trim().slice(0, 60)}'`);
  }
  return facts;
}

function beginnings(lines: readonly string[]): string[] {
  return lines.map((line) => line.slice(0, MAX_LINE));
}

/**
 * Return the columns, named by the header or else by position: of the header lines with a word for each column the
 * last one counts from which the columns are understood, or else the last one that names the wavelengths.
 */
function namedColumns(path: string, layout: Layout, cells: readonly Cells[]): Named {
  const head = beginnings(layout.head.slice(-200));
  const lines = head.slice(-20).map((line) => headerFields(line, layout));
  const wordy = lines.filter((fields) => fields.some((field) => !TYPES.has(field.toLowerCase()))).reverse();
  const headers = wordy.map((names, i) => ({ names, units: unitsIn(wordy[i - 1]) }));
  let partly: Named | null = null;
  for (const { names, units } of [...numbered(head, layout), ...headers]) {
    const columns = named(names, units ?? [], cells);
    try {
      understand(columns, path);
      return { columns, notes: [] };
    } catch (error) {
      if (!(error instanceof ReadError)) throw error;
      if (OTHER_AXIS.test(names.join(" ")))
        throw new NoWavelengthError(`${path}: columns ${names.join(", ")}: needed wavelengths`);
      partly ??= fluxBesideWavelengths(path, columns);
    }
  }
  if (partly !== null) return partly;
  const last = head.at(-1) ?? "";
  const first = last.replace(COMMENT, "").trim().split(/\s+/)[0];
  if (OTHER_AXIS.exec(first)?.index === 0 && !/[=:]/.test(last))
    throw new NoWavelengthError(`${path}: columns '${last.trim().slice(0, 60)}': needed wavelengths`);
  if (layout.words.size) {
    const shown = wordy.length ? `columns ${wordy[0].join(", ")}` : `${layout.nColumn} columns without names`;
    throw new ReadError(`${path}: ${shown}, some of words: no wavelength and flux among them`);
  }
  const below = headers.map(({ units }) => units?.[0] ?? "").find(isWavelengthUnit);
  const said = head.map((line) => UNIT.exec(line)?.[1]);
  return byPosition(layout, cells, below ?? said.find((unit) => unit !== undefined) ?? "");
}

/** Return columns of which only the wavelength has a known name, with the next one that may be it as flux, or null. */
function fluxBesideWavelengths(path: string, columns: readonly Column[]): Named | null {
  const wavelength = findWavelength(columns);
  if (wavelength === null || columns.some((column) => column.words || PROSE.has(column.name.toLowerCase())))
    return null;
  const at = columns.indexOf(wavelength);
  if (at > 0 && !isMonotonic(wavelength.values)) return null;
  const flux = [...columns.slice(at + 1), ...columns.slice(0, at)].find((column) => !NO_FLUX.has(keyOf(column)));
  if (flux === undefined)
    throw new ReadError(`${path}: columns ${columns.map(({ name }) => name).join(", ")}: no flux among them`);
  if (MAGNITUDE.test(keyOf(flux))) throw new ReadError(`${path}: column ${flux.name} holds magnitudes, needed fluxes`);
  const renamed = columns.map((column) => (column === flux ? { ...column, name: "flux" } : column));
  const roles = understand(renamed, path);
  const used = [roles.wavelength, roles.flux, roles.error, roles.mask];
  const unused = renamed.filter((column) => !used.includes(column)).map(({ name }) => name);
  const leftOut = unused.length ? `; left out: ${unused.join(", ")}` : "";
  return { columns: renamed, notes: [`column ${flux.name} taken as flux${leftOut}`] };
}

function isMonotonic(values: Float64Array): boolean {
  const step = differences(values);
  return step.every((one) => one > 0) || step.every((one) => one < 0);
}

/** Return the words of a header line, one a column, parted as in IPAC tables, by tabs, or as the numbers are. */
function headerFields(line: string, layout: Layout): string[] {
  const fields = ["|", "\t", layout.delimiter].map((delimiter) => split(line.replace(COMMENT, ""), delimiter));
  return fields.find((found) => found.length === layout.nColumn && !found.every(isNumber)) ?? [];
}

/** Return the names and units that lines such as `# Column 1: wavelength (nm)` give to all columns. */
function numbered(head: readonly string[], layout: Layout): { names: string[]; units: string[] }[] {
  const named = new Map<number, { name: string; unit: string }>();
  for (const line of head) {
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

function named(names: readonly string[], units: readonly string[], cells: readonly Cells[]): Column[] {
  return cells.map((held, i) => ({ ...held, name: names[i], unit: units[i] ?? "" }));
}

/** Return wavelength, flux, and, when it can be one, error; and notes. */
function byPosition(layout: Layout, cells: readonly Cells[], unit = ""): Named {
  const isError =
    cells.length > 2 && !layout.words.size && mayBeError(cells[2].values, cells[1].values, cells[0].values);
  const names = cells.map((_, i) => ["wavelength", "flux", isError ? "error" : undefined][i] ?? `column${i + 1}`);
  const unused = Array.from(names.keys(), (i) => i + 1).slice(isError ? 3 : 2);
  return {
    columns: named(names, [unit], cells),
    notes: [
      ...(isError ? ["third column taken as error"] : []),
      ...(unused.length ? [`left out, without a name: column ${unused.join(", ")}`] : []),
    ],
  };
}

/**
 * Return whether numbers beside a flux may be its error.
 *
 * They are not negative, no flags or counts, of a likely size, and not the same flux for a unit of frequency.
 */
function mayBeError(values: Float64Array, flux: Float64Array, wavelength: Float64Array): boolean {
  const known = values.filter(Number.isFinite);
  const seen = flux.filter(Number.isFinite).map(Math.abs);
  if (!known.length || !seen.length || known.some((value) => value < 0) || known.every(Number.isInteger)) return false;
  if (isPerHertz(values, flux, wavelength)) return false;
  const [lowest, highest] = ERROR_TO_FLUX.map((ratio) => ratio * median(seen));
  return lowest <= median(known) && median(known) <= highest;
}

/** Return whether numbers go as flux times wavelength squared: they are the same flux, for a unit of frequency. */
function isPerHertz(values: Float64Array, flux: Float64Array, wavelength: Float64Array): boolean {
  const usable = Array.from(values.keys()).filter(
    (i) => Number.isFinite(values[i]) && flux[i] > 0 && wavelength[i] > 0,
  );
  const range = usable.map((i) => wavelength[i]).sort((a, b) => a - b);
  if (usable.length < 10 || range[range.length - 1] < LONG_RANGE * range[0]) return false;
  const ratio = usable.map((i) => values[i] / flux[i] / wavelength[i] ** 2);
  return quantile(ratio, 0.9) < SAME_FLUX * quantile(ratio, 0.1);
}

function wavelengths(
  wavelength: Column,
  log: number | null,
  where: string,
): { wavelength: Float64Array; notes: string[] } {
  if (log === null) return toAngstrom(wavelength.values, unitOf(wavelength), where);
  const middle = wavelength.values[wavelength.values.length >> 1];
  const base = middle > 5.5 && middle < 12 ? Math.E : log; // 10**5.5 A are 32 micron
  const values = wavelength.values.map((value) => base ** value);
  const found = toAngstrom(values, unitOf(wavelength), where, "Angstrom");
  return base === log ? found : { ...found, notes: [...found.notes, "natural logarithms, from their size"] };
}

function sigmaOf(error: Column | null, kind: ErrorKind): Float64Array | null {
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
/** Return whether the first line is one of stars and the first column can be wavelengths of such a file. */
function isLibreEsprit(layout: Layout, cells: readonly Cells[]): boolean {
  const used = Array.from(cells[0].values).filter((value) => Number.isFinite(value) && value > 0);
  const inRange = used.length > 1 && used.every((value) => value >= LIBRE_ESPRIT[0] && value <= LIBRE_ESPRIT[1]);
  return inRange && cells.length > 1 && Boolean(layout.head[0]?.startsWith("***")) && !layout.words.size;
}

function libreEsprit(layout: Layout, cells: readonly Cells[], source: Source): Spectrum {
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
  const [stored, flux] = cells.map(({ values }) => values);
  const sigma = cells.length > 2 ? cells[cells.length - 1].values : null;
  return assemble({ wavelength: stored.map((value) => value * 10), flux, sigma }, facts, source);
}
