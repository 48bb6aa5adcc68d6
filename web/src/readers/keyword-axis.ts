/**
 * Images whose wavelengths are in keywords: CRVAL1, CDELT1 and their many dialects;
 * the counterpart of `anna_onnx.readers.keyword_axis`.
 *
 * Greisen & Calabretta 2002, A&A 395, 1061 (FITS paper I); Greisen et al. 2006, A&A 446, 747 (FITS paper III); IRAF `help specwcs`.
 */

import { NoWavelengthError, ReadError } from "../errors.ts";
import { general } from "../format.ts";
import { clamp } from "../numeric.ts";
import type { Facts, Spectrum } from "../spectrum.ts";
import { assemble } from "./assembly.ts";
import { factsFrom, irafMedium, noted } from "./facts.ts";
import { product, type Hdu, type Header } from "./fits.ts";
import { guessUnit, isStated, splitLog, toAngstrom } from "./units.ts";
import { attributes, bandsOf, unitAndLabel } from "./wat.ts";

const REFUSED = new Map<string, string>([
  ...["VELO", "VRAD", "VOPT", "FELO", "ZOPT", "BETA", "KM/S", "M/S"].map((type) => [type, "velocities"] as const),
  ["%", "line depths"], // of a bisector
  ...["FREQ", "AFRQ"].map((type) => [type, "frequencies"] as const),
  ...["ENER", "WAVN"].map((type) => [type, "energies or wavenumbers"] as const),
]);
const PIXELS = ["PIXEL", "PIX", "CHANNEL", "INDEX", "RA--", "DEC-", "GLON", "GLAT", "STOKES", "POSITION", "SPATIAL"];

/** Read an image: one spectrum, or one a line when the header says that lines are spectra. */
export function readKeywordAxis(path: string, hdu: Hdu): Spectrum[] {
  const where = `${path}[${hdu.index}]`;
  const { header } = hdu;
  const [nBand, nLine, nPixel] = [1, 1, ...hdu.shape].slice(-3);
  const explained = nBand * nLine === 1 || linesAreSpectra(header);
  if (!explained || nPixel < 2 || nBand * nLine * nPixel !== product(hdu.shape)) {
    refuse(header.string("CTYPE1").toUpperCase(), where);
    const kind = header.has("CRVAL1") ? ReadError : NoWavelengthError;
    throw new kind(
      `${where}: an image of ${hdu.shape.join(" x ")} that no layout explains; needed a spectrum in one axis; anna-lite infer reads more`,
    );
  }
  const { wavelength, facts } = axis(header, nPixel, where);
  const image = hdu.image();
  const { fluxBand, sigmaBand } = bandsOf(header, nBand);
  return Array.from({ length: nLine }, (_, row) => {
    const line = (band: number) => image.slice((band * nLine + row) * nPixel, (band * nLine + row + 1) * nPixel);
    const pixels = { wavelength, flux: line(fluxBand), sigma: sigmaBand === null ? null : line(sigmaBand) };
    const named = { ...facts, id: header.string(`APID${row + 1}`) || facts.id };
    return assemble(pixels, named, { file: path, hdu: hdu.index, row: nLine > 1 ? row : null });
  });
}

function linesAreSpectra(header: Header): boolean {
  return attributes(header, 0).get("system") === "equispec" || header.has("APNUM1");
}

/** Return the wavelengths of axis 1, and what the header says. */
function axis(header: Header, nPixel: number, where: string): { wavelength: Float64Array; facts: Facts } {
  const ctype = header.string("CTYPE1").toUpperCase();
  refuse(ctype, where);
  const { first, step, notes } = linear(header, where);
  const { unit, label } = unitOf(header, ctype);
  if (label.toLowerCase().startsWith("velo"))
    throw new ReadError(`${where}: the axis holds velocities (label '${label}'), needed wavelengths`);
  const log = splitLog(unit);
  // The standard's default of CRPIX1 is 0, but whoever leaves it out means the first pixel.
  const reference = header.number("CRPIX1") ?? 1;
  const pixel = Float64Array.from({ length: nPixel }, (_, i) => i + 1 - reference);
  const guessed = logBase(header, ctype, unit, first, step);
  const { base, notes: logNotes } = guessed.base === null ? { base: log.base, notes: [] } : guessed;
  let values = pixel.map((at) => first + step * at);
  if (base !== null) {
    if (!values.every((value) => Math.abs(value) < 300))
      throw new ReadError(`${where}: axis of log type begins at ${general(first)}, no logarithm`);
    values = values.map((value) => base ** value);
  } else if (ctype.endsWith("-LOG")) {
    // Paper III, table 3: the step holds at the reference value, and grows with wavelength.
    values = pixel.map((at) => first * Math.exp(clamp((step * at) / first, -700, 700)));
  }
  const { wavelength, notes: unitNotes } = inAngstrom(values, log.base === null ? unit : log.inner, header, where);
  const facts = noted(factsFrom(header), ...notes, ...logNotes, ...unitNotes);
  return { wavelength, facts: writtenByIraf(header) ? irafMedium(facts, wavelength) : facts };
}

function refuse(ctype: string, where: string): void {
  const what = REFUSED.get(ctype.includes("VELOC") ? "VELO" : ctype.slice(0, 4));
  if (what) throw new ReadError(`${where}: the axis holds ${what} (CTYPE1 '${ctype}'), needed wavelengths`);
  if (PIXELS.some((prefix) => ctype.startsWith(prefix)))
    throw new NoWavelengthError(`${where}: the axis is '${ctype}', needed wavelengths`);
  // WAVE-WAV is ELODIE's.
  if (/^(WAVE|AWAV)-(?!LOG|WAV)[A-Z0-9]{3}$/.test(ctype))
    throw new ReadError(`${where}: CTYPE1 '${ctype}': only linear and -LOG axes are read`);
}

/** Return CRVAL1, the step, and notes; beside CD1_1 CDELT1 does not count (FITS paper I), unless that is stale. */
function linear(header: Header, where: string): { first: number; step: number; notes: string[] } {
  let first = header.number("CRVAL1");
  let step = header.number("CDELT1");
  const matrix = header.number("CD1_1");
  const rotation = header.number("PC1_1");
  const notes: string[] = [];
  if (matrix && step && step !== 1 && isStale(matrix, header))
    notes.push(`step CDELT1 = ${general(step)}; CD1_1 = ${general(matrix)} does not count beside it`);
  else if (matrix) {
    if (step && step !== 1 && !(Math.abs(step - matrix) <= 1e-6 * Math.max(Math.abs(step), Math.abs(matrix))))
      notes.push(`step CD1_1 = ${general(matrix)}; CDELT1 = ${general(step)} does not count beside it`);
    step = matrix;
  }
  // astropy writes CD1_1 as PC1_1 beside a CDELT1 of 1.
  else if (matrix === null && rotation) step = rotation * (step ?? 1);
  // Of SDSS, of IRAF before 1990.
  for (const [value, increment] of [
    ["COEFF0", "COEFF1"],
    ["W0", "WPC"],
  ])
    if (first === null && header.number(value) !== null)
      [first, step] = [header.number(value), header.number(increment)];
  if (first === null || !step)
    throw new NoWavelengthError(`${where}: no CRVAL1 and CDELT1 or CD1_1, so that no pixel has a wavelength`);
  if (step === 1 && (first === 0 || first === 1))
    throw new NoWavelengthError(`${where}: CRVAL1 ${first} and CDELT1 1 count pixels, needed wavelengths`);
  if (header.number("CRPIX1") === null) notes.push("CRPIX1 missing, taken as 1");
  return { first, step, notes };
}

/** Return whether CD1_1 was never set, or is left over from the image that a spectrum was extracted from. */
function isStale(matrix: number, header: Header): boolean {
  return matrix === 1 || (header.integer("NAXIS") === 1 && (header.has("CD2_1") || header.has("CD2_2")));
}

/** Return the unit and the label of the axis, as stated anywhere. */
function unitOf(header: Header, ctype: string): { unit: string; label: string } {
  const { unit, label } = header.has("WAT1_001") ? unitAndLabel(header) : { unit: "", label: "" };
  const bracket = /[[(]\s*([^\])]+?)\s*[\])]/.exec(header.string("CTYPE1"));
  const candidates = [
    header.string("CUNIT1"),
    unit,
    bracket && !/^(wav|lam)/i.test(bracket[1]) ? bracket[1] : "", // log(wavelength)
    /^(ang|nano|micr)/i.test(label) ? label : "",
    /^(ANGS|NANO|MICR)/.test(ctype) ? ctype : "",
    header.string("XUNITS"),
    header.string("WAVEUNIT"),
  ];
  return { unit: candidates.find(isStated) ?? "", label };
}

/** Return the base of the stored logarithms, or null when wavelengths are stored. */
function logBase(
  header: Header,
  ctype: string,
  unit: string,
  first: number,
  step: number,
): { base: number | null; notes: string[] } {
  const flag = header.integer("DC-FLAG");
  if (flag === 1) return { base: 10, notes: [] };
  const spoken = ctype.includes("LOG") || splitLog(unit).base !== null;
  const micron = /^(mic|um)/i.test(unit);
  const at = `CRVAL1 ${general(first)}`;
  if (spoken && first > 5.5 && first < 12 && !micron)
    return { base: Math.E, notes: [`natural logarithms: ${ctype} ${unit} with ${at}`] };
  const small = first > 2.3 && first < 5.5 && Math.abs(step) < 0.01;
  if (spoken && small && !micron) return { base: 10, notes: [`logarithms of base 10: ${ctype} ${unit} with ${at}`] };
  if (header.number("COEFF0") !== null && small) return { base: 10, notes: [] };
  if (flag === null && first > 3.3 && first < 4.6 && small && (!unit || /^ang/i.test(unit)))
    return { base: 10, notes: [`logarithms of base 10, from ${at} ${unit || "without a unit"}`] };
  return { base: null, notes: [] };
}

function inAngstrom(
  values: Float64Array,
  unit: string,
  header: Header,
  where: string,
): { wavelength: Float64Array; notes: string[] } {
  if (unit || !byIraf(header)) return toAngstrom(values, unit, where);
  let guess = "Angstrom";
  try {
    guess = guessUnit(values, where);
  } catch (error) {
    if (!(error instanceof ReadError) || error instanceof NoWavelengthError || values[0] < 100) throw error;
  }
  const { wavelength } = toAngstrom(values, guess, where);
  return { wavelength, notes: [`wavelength unit not stated, taken as ${guess}`] };
}

/** Return whether IRAF wrote the file: XIDL writes DC-FLAG too, and its wavelengths are in vacuum. */
function writtenByIraf(header: Header): boolean {
  const own = ["WAT0_001", "WCSDIM", "IRAF-TLM", "W0"].some((key) => header.has(key));
  return own || header.string("ORIGIN").toUpperCase().includes("IRAF");
}

function byIraf(header: Header): boolean {
  return header.has("WAT0_001") || header.has("DC-FLAG");
}
