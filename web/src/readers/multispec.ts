/**
 * IRAF multispec: many spectra in one image, each with its own dispersion function;
 * the counterpart of `anna_onnx.readers.multispec`.
 *
 * Valdes 1993, The IRAF/NOAO Spectral World Coordinate Systems (`help specwcs`).
 */

import { NoWavelengthError, ReadError } from "../errors.ts";
import { general } from "../format.ts";
import { chebyshev, clamp, legendre, roundHalfEven, searchSorted } from "../numeric.ts";
import type { Reading, Source, Spectrum } from "../spectrum.ts";
import { assemble, attempt } from "./assembly.ts";
import { factsFrom, irafMedium, noted } from "./facts.ts";
import type { Hdu, Header } from "./fits.ts";
import { parseNumber } from "./number.ts";
import { toAngstrom } from "./units.ts";
import { attributes, bandsOf, unitAndLabel } from "./wat.ts";

/** The dispersion of one image line: `ap beam dtype w1 dw nw z aplow aphigh [functions]`. */
interface Dispersion {
  readonly aperture: number;
  /** -1 none, 0 linear, 1 log-linear, 2 nonlinear. */
  readonly kind: number;
  readonly first: number;
  readonly step: number;
  /** Number of physical pixels that hold the spectrum; the rest of the line is padding. */
  readonly nPixel: number;
  readonly redshift: number;
  readonly functions: readonly number[];
}

export function isMultispec({ header, shape }: Hdu): boolean {
  return shape.length > 0 && !shape.includes(0) && header.string("CTYPE1").toUpperCase().startsWith("MULTISPE");
}

/** Read a multispec image, one spectrum an aperture. */
export function readMultispec(path: string, hdu: Hdu, primary: Header): Reading[] {
  const where = `${path}[${hdu.index}]`;
  const { header } = hdu;
  if (hdu.shape.length > 3)
    throw new ReadError(`${where}: a multispec image of ${hdu.shape.length} axes, needed 1 to 3`);
  const [nBand, nLine, nPixel] = [1, 1, ...hdu.shape].slice(-3);
  const image = hdu.image();
  const line = (band: number, row: number) =>
    image.subarray((band * nLine + row) * nPixel, (band * nLine + row + 1) * nPixel);
  const facts = factsFrom(header, primary);
  const specs = attributes(header, 2);
  if (!Array.from(specs.keys()).some((name) => /^spec\d+$/.test(name)))
    throw new NoWavelengthError(`${where}: WAT2 has no dispersion of any aperture (spec1 and so on)`);
  const unit = unitOf(header);
  const { fluxBand, sigmaBand } = bandsOf(header, nBand);
  const pixel = physicalPixels(header, nPixel, where);

  /** Read one aperture; null if it is not dispersion-calibrated. */
  function aperture(source: Source, row: number): Spectrum | null {
    const physical = physicalLine(header, row);
    const text = specs.get(`spec${physical}`);
    if (text === undefined)
      throw new NoWavelengthError(`${where}: WAT2 has no spec${physical} for image line ${row + 1}`);
    const dispersion = parse(text, where);
    if (dispersion.kind === -1 && nLine > 1) return null;
    const inside = Array.from(pixel.keys()).filter((i) => pixel[i] > 0.5 && pixel[i] < dispersion.nPixel + 0.5);
    if (inside.length < 2)
      throw new ReadError(
        `${where}: aperture ${dispersion.aperture} has ${inside.length} pixels (nw ${dispersion.nPixel}), needed at least 2`,
      );
    const take = (values: Float64Array) => Float64Array.from(inside, (i) => values[i]);
    const stored = evaluate(dispersion, take(pixel), where);
    const { wavelength, notes } = toAngstrom(stored, unit, where, "Angstrom");
    const named = { ...facts, id: header.string(`APID${physical}`) || facts.id };
    const sigma = sigmaBand === null ? null : take(line(sigmaBand, row));
    const known = noted(irafMedium(named, wavelength), ...notes);
    return assemble({ wavelength, flux: take(line(fluxBand, row)), sigma }, known, source);
  }

  const readings = Array.from({ length: nLine }, (_, row) => {
    const source = { file: path, hdu: hdu.index, row };
    return attempt(source, () => aperture(source, row));
  }).filter((reading) => reading !== null);
  if (!readings.length) throw new NoWavelengthError(`${where}: no aperture has a dispersion solution`);
  return readings;
}

/** Return the unit of the axis; a label such as Velocity or Pixel stands for one that is refused. */
function unitOf(header: Header): string {
  const { unit, label } = unitAndLabel(header);
  const bracket = /[[(]\s*([^\])]+?)\s*[\])]/.exec(label);
  const silent = ["", "wavelength", "lambda"].includes(label.toLowerCase());
  return unit || header.string("CUNIT1") || (bracket ? bracket[1] : silent ? "" : label);
}

/** Return the line of the original image, from which IRAF numbers the dispersions. */
function physicalLine(header: Header, row: number): number {
  const axes = (header.string("WAXMAP01") || header.string("WAXMAP1")).split(/\s+/);
  if (axes.length >= 4 && axes[2] === "0" && /^\d+$/.test(axes[3])) return Number(axes[3]) + 1;
  const shift = header.number("LTV2") ?? 0;
  const scale = header.number("LTM2_2") || 1;
  return roundHalfEven((row + 1 - shift) / scale);
}

/** Return the pixel numbers of the original image, before it was trimmed or binned. */
function physicalPixels(header: Header, nPixel: number, where: string): Float64Array {
  const shift = header.number("LTV1") ?? 0;
  const scale = header.number("LTM1_1") ?? 1;
  if (scale === 0) throw new ReadError(`${where}: LTM1_1 is zero`);
  return Float64Array.from({ length: nPixel }, (_, i) => (i + 1 - shift) / scale);
}

function parse(text: string, where: string): Dispersion {
  const fields = text
    .trim()
    .split(/\s+/)
    .map((field) => parseNumber(field === "INDEF" ? "nan" : field.replaceAll("D", "E")));
  const [aperture, beam, kind, first, step, nPixel, redshift] = fields as number[];
  if (fields.length < 7 || fields.includes(null) || ![aperture, beam, kind, nPixel].every(Number.isFinite))
    throw new ReadError(`${where}: dispersion '${text.slice(0, 60)}' is not of IRAF's form`);
  return {
    aperture,
    kind: Math.trunc(kind),
    first,
    step,
    nPixel: Math.trunc(nPixel),
    redshift,
    functions: (fields as number[]).slice(9),
  };
}

/** Evaluate a dispersion at physical pixels, the first being 1. */
function evaluate(dispersion: Dispersion, pixel: Float64Array, where: string): Float64Array {
  const { aperture, kind, first, step, redshift, functions } = dispersion;
  if (kind === 2) return weightedMean(functions, pixel, where).map((value) => value / (1 + redshift));
  if (kind !== 0 && kind !== 1)
    throw new NoWavelengthError(`${where}: aperture ${aperture} has no dispersion solution (type ${kind})`);
  const linear = pixel.map((at) => first + step * (at - 1));
  if (kind === 0) return linear.map((value) => value / (1 + redshift));
  if (!linear.every((value) => Math.abs(value) < 300))
    throw new ReadError(`${where}: aperture ${aperture} of log type begins at ${general(first)}, no logarithm`);
  return linear.map((value) => 10 ** value / (1 + redshift));
}

/** Return the weighted mean of the dispersion functions. */
function weightedMean(functions: readonly number[], pixel: Float64Array, where: string): Float64Array {
  if (!functions.every(Number.isFinite))
    throw new ReadError(`${where}: a dispersion function with fields that are no numbers`);
  const total = new Float64Array(pixel.length);
  let weights = 0;
  for (let rest = functions; rest.length;) {
    if (rest.length < 4) throw new ReadError(`${where}: a dispersion function of ${rest.length} fields`);
    const [weight, offset, kind, order] = rest;
    const make = FUNCTIONS[Math.trunc(kind)];
    if (make === undefined || !Number.isInteger(order) || order < 1 || order > rest.length)
      throw new ReadError(
        `${where}: dispersion function of type ${general(kind)} and order ${general(order)} is not IRAF's`,
      );
    const { value, used } = make(order, Float64Array.from(rest.slice(4)), where);
    pixel.forEach((at, i) => (total[i] += weight * (offset + value(at))));
    weights += weight;
    rest = rest.slice(4 + used);
  }
  if (weights === 0) throw new ReadError(`${where}: no dispersion function`);
  return total.map((value) => value / weights);
}

/** Makes a function of pixel numbers from its fields, and says how many of them it used. */
type Maker = (order: number, fields: Float64Array, where: string) => { value: (pixel: number) => number; used: number };

const FUNCTIONS: Record<number, Maker | undefined> = {
  1: polynomial(chebyshev),
  2: polynomial(legendre),
  3: cubicSpline,
  4: linearSpline,
  5: pixelArray,
  6: sampledArray,
};

/** Return the pixel range and the coefficients. */
function range(order: number, fields: Float64Array, n: number, where: string): [number, number, Float64Array] {
  if (fields.length < 2 + n || !(fields[1] > fields[0]))
    throw new ReadError(`${where}: a dispersion function of order ${order} lacks its range or coefficients`);
  return [fields[0], fields[1], fields.slice(2, 2 + n)];
}

function polynomial(series: (x: number, coefficients: Float64Array) => number): Maker {
  return (order, fields, where) => {
    const [low, high, coefficients] = range(order, fields, order, where);
    return { value: (at) => series((2 * at - (high + low)) / (high - low), coefficients), used: 2 + order };
  };
}

/** Return the piece that a pixel is in, and how far into it. */
function splinePosition(at: number, pieces: number, low: number, high: number): [number, number] {
  const s = ((at - low) / (high - low)) * pieces;
  const piece = clamp(Math.trunc(s), 0, pieces - 1);
  return [piece, s - piece];
}

function cubicSpline(pieces: number, fields: Float64Array, where: string): ReturnType<Maker> {
  const [low, high, c] = range(pieces, fields, pieces + 3, where);
  const value = (at: number) => {
    const [j, b] = splinePosition(at, pieces, low, high);
    const a = 1 - b;
    return (
      a ** 3 * c[j] + (1 + 3 * a * (1 + a * b)) * c[j + 1] + (1 + 3 * b * (1 + a * b)) * c[j + 2] + b ** 3 * c[j + 3]
    );
  };
  return { value, used: 2 + pieces + 3 };
}

function linearSpline(pieces: number, fields: Float64Array, where: string): ReturnType<Maker> {
  const [low, high, c] = range(pieces, fields, pieces + 1, where);
  const value = (at: number) => {
    const [j, b] = splinePosition(at, pieces, low, high);
    return (1 - b) * c[j] + b * c[j + 1];
  };
  return { value, used: 2 + pieces + 1 };
}

function pixelArray(n: number, fields: Float64Array, where: string): ReturnType<Maker> {
  if (n < 2 || fields.length < n)
    throw new ReadError(`${where}: a pixel array of ${n} wavelengths has ${fields.length}`);
  return {
    value: alongPieces(
      Float64Array.from({ length: n }, (_, i) => i + 1),
      fields,
    ),
    used: n,
  };
}

/** Pairs of pixel and wavelength after a dummy field; IRAF's code counts the numbers, its manual the pairs. */
function sampledArray(n: number, fields: Float64Array, where: string): ReturnType<Maker> {
  const nNumber = fields.length >= 1 + 2 * n ? 2 * n : n;
  const pairs = fields.slice(1, 1 + nNumber);
  const x = pairs.filter((_, i) => i % 2 === 0);
  const y = pairs.filter((_, i) => i % 2 === 1);
  if (nNumber < 4 || nNumber % 2 || pairs.length < nNumber || !x.every((at, i) => i === 0 || at > x[i - 1]))
    throw new ReadError(
      `${where}: a sampled array of ${n} coordinates has ${fields.length - 1}, or they do not ascend`,
    );
  return { value: alongPieces(x, y), used: 1 + nNumber };
}

/** Interpolate linearly; beyond the ends along the last piece, as IRAF does. */
function alongPieces(x: Float64Array, y: Float64Array): (at: number) => number {
  return (at) => {
    const left = clamp(searchSorted(x, at, "right") - 1, 0, x.length - 2);
    const fraction = (at - x[left]) / (x[left + 1] - x[left]);
    return (1 - fraction) * y[left] + fraction * y[left + 1];
  };
}
