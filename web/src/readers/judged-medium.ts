/**
 * The medium where the file does not state it, judged from the grid or from the star's lines;
 * the counterpart of `anna_onnx.readers.judged_medium`, where the reasons are.
 */

import { fixed } from "../format.ts";
import { C_KMS, airToVacuum } from "../medium.ts";
import { clamp, interpolate, sum } from "../numeric.ts";
import type { Medium, Spectrum } from "../spectrum.ts";

interface Verdict {
  readonly medium: Medium;
  readonly why: string;
}

interface Line {
  /** Angstrom, in air. */
  readonly air: number;
  readonly multiplet: string;
}

/** A multiplet whose lines agree, and its velocity in km/s. */
interface Found {
  readonly name: string;
  readonly inAir: number;
  readonly inVacuum: number;
}

const SDSS_STEP = 1e-4; // of log10(wavelength)
const OFF_GRID = 0.02; // of a step
const MIN_PIXEL = 500;
const MIN_SHIFTED = 2000;
const SURVEYS = "as SDSS, BOSS, LAMOST and MaNGA have it";

// Kramida et al., NIST Atomic Spectra Database, https://physics.nist.gov/asd
const MULTIPLETS = new Map([
  ["Balmer lines", [4340.46, 4861.32, 6562.79]],
  ["Mg b", [5172.68, 5183.6]],
  ["Na D", [5889.95, 5895.92]],
  ["Ca II triplet", [8498.02, 8542.09, 8662.14]],
]);
const LINES: readonly Line[] = Array.from(MULTIPLETS, ([multiplet, wavelengths]) =>
  wavelengths.map((air) => ({ air, multiplet })),
).flat();
const VELOCITY = Array.from({ length: 78 }, (_, i) => 5 * i - 150); // km/s beside the expected one, as if in air
const INSIDE = [60, 145]; // km/s to either side of a line that a spectrum must cover

// km/s from the expected velocity in air and in vacuum
const NEAR_KNOWN = [30, 30];
const NEAR_REST = [20, 5];
const AGREEMENT = 8; // km/s
const MAX_STEP = 20; // km/s a pixel
const REACH = 11; // samples to either side of the deepest
const MIN_RESOLUTION = 5000;
const DEPTH = [0.3, 1]; // of the continuum
const CONTRAST = 4; // depth over the scatter beside the line
const EMISSION = 0.5; // above the continuum
const CONTINUUM = Math.floor(0.85 * VELOCITY.length); // the rank of the pixel that stands for it

/** Return a spectrum in the medium that was asked for, else with one judged where the file is silent, and a note. */
export function inMedium(spectrum: Spectrum, asked: Medium | null): Spectrum {
  if (asked === null) return judge(spectrum);
  return {
    ...spectrum,
    medium: asked,
    notes: [...spectrum.notes, `medium ${asked} as requested (file: ${spectrum.medium})`],
  };
}

/** Return a spectrum of unknown medium with the medium that its grid or its lines tell, if they do, and a note. */
function judge(spectrum: Spectrum): Spectrum {
  if (spectrum.medium !== "unknown") return spectrum;
  const verdict = byGrid(spectrum.wavelength) ?? byLines(spectrum);
  if (verdict === null) return spectrum;
  const { medium, why } = verdict;
  return { ...spectrum, medium, notes: [...spectrum.notes, `medium ${medium}, ${why}`] };
}

/** Return vacuum for the grid of SDSS. */
function byGrid(wavelength: Float64Array): Verdict | null {
  const n = wavelength.length;
  const steps = Math.log10(wavelength[n - 1] / wavelength[0]) / SDSS_STEP;
  if (n < MIN_PIXEL || Math.abs(steps - (n - 1)) > 2 * OFF_GRID) return null;
  const phase = wavelength.map((value) => Math.log10(value) / SDSS_STEP);
  if (phase.every((value) => Math.abs(value - Math.round(value)) < OFF_GRID))
    return { medium: "vacuum", why: `${SURVEYS}, on whose grid it is` };
  const shift = phase.map((value, i) => value - i);
  const range = shift.reduce((a, b) => Math.max(a, b)) - shift.reduce((a, b) => Math.min(a, b));
  if (n < MIN_SHIFTED || range >= 2 * OFF_GRID) return null;
  return { medium: "vacuum", why: `${SURVEYS}, whose step of 0.0001 in log10 it has` };
}

/** Return the medium in which all clear multiplets are at the expected velocity. */
function byLines(spectrum: Spectrum): Verdict | null {
  const lines = linesWithin(spectrum.wavelength);
  const { expected, known } = expectedVelocity(spectrum);
  if (lines.length < 2 || expected === null || isCoarse(spectrum)) return null;
  const found = velocities(spectrum, lines, expected);
  if (!found.length) return null;
  const how = `judged by its lines: ${found.map(({ name }) => name).join(", ")} then at`;
  const air = signed(mean(found.map(({ inAir }) => inAir)));
  const vacuum = signed(mean(found.map(({ inVacuum }) => inVacuum)));
  const [nearAir, nearVacuum] = known ? NEAR_KNOWN : NEAR_REST;
  if (found.every(({ inAir }) => Math.abs(inAir - expected) < nearAir))
    return { medium: "air", why: `${how} ${air}, as vacuum at ${vacuum}` };
  if (found.every(({ inVacuum }) => Math.abs(inVacuum - expected) < nearVacuum))
    return { medium: "vacuum", why: `${how} ${vacuum}, as air at ${air}` };
  return null;
}

/** Return the lines that the wavelengths cover with some room to either side. */
function linesWithin(wavelength: Float64Array): Line[] {
  const first = wavelength[0] * (1 + INSIDE[0] / C_KMS);
  const last = wavelength[wavelength.length - 1] * (1 - INSIDE[1] / C_KMS);
  return LINES.filter(({ air }) => first <= air && air <= last);
}

/** Return whether blends shift the lines more than tells the media apart. */
function isCoarse({ wavelength, resolution }: Spectrum): boolean {
  const n = wavelength.length;
  const step = (C_KMS * Math.log(wavelength[n - 1] / wavelength[0])) / (n - 1);
  return step > MAX_STEP || (resolution !== null && resolution < MIN_RESOLUTION);
}

/** Return the velocity that the lines should have, and whether it is known rather than that of most stars. */
function expectedVelocity({ frame, radialVelocity }: Spectrum): { expected: number | null; known: boolean } {
  if (frame === "rest") return { expected: 0, known: true };
  if (radialVelocity === null) return { expected: 0, known: false };
  return { expected: frame === "unknown" ? null : radialVelocity, known: true };
}

/** Return the multiplets whose lines are all clear and agree. */
function velocities(spectrum: Spectrum, lines: readonly Line[], expected: number): Found[] {
  const flux = spectrum.flux.map((value, i) => (spectrum.bad[i] ? NaN : value));
  return Array.from(MULTIPLETS.keys()).flatMap((name) => {
    const own = lines.filter(({ multiplet }) => multiplet === name);
    const measured = own.map(({ air }) => lineVelocity(spectrum.wavelength, flux, air, expected));
    const agree = Math.max(...measured) - Math.min(...measured) < AGREEMENT; // NaN, of a line not clear, is not less
    if (own.length < 2 || !agree) return [];
    const inAir = mean(measured);
    const shift = mean(own.map(({ air }) => C_KMS * (airToVacuum(air) / air - 1)));
    return [{ name, inAir, inVacuum: inAir - shift }];
  });
}

/** Return where an absorption line is, km/s as if in air: the centroid of its lower half; NaN if it is not clear. */
function lineVelocity(wavelength: Float64Array, flux: Float64Array, air: number, expected: number): number {
  const sampled = (velocity: number) => air * (1 + velocity / C_KMS) * (1 + expected / C_KMS);
  const profile = Float64Array.from(VELOCITY, (velocity) => interpolate(sampled(velocity), wavelength, flux));
  const ordered = profile.slice().sort(); // NaN last, so that it is the highest
  const continuum = ordered[CONTINUUM];
  const deepest = 1 - ordered[0] / continuum;
  const highest = ordered[ordered.length - 1] / continuum;
  const plausible = deepest > DEPTH[0] && deepest < DEPTH[1] && highest < 1 + EMISSION && continuum > 0;
  if (!plausible) return NaN;
  const depth = profile.map((value) => 1 - value / continuum);
  const at = clamp(profile.indexOf(ordered[0]), REACH, VELOCITY.length - 1 - REACH);
  const [first, end] = [at - REACH, at + REACH + 1];
  const lower = depth.slice(first, end).map((value) => Math.max(value - 0.5 * deepest, 0));
  const beside = [...depth.slice(0, first), ...depth.slice(end)];
  const scatter2 = mean(beside.map((value) => value ** 2)) - mean(beside) ** 2;
  const narrow = lower[0] + lower[lower.length - 1] === 0;
  if (!narrow || !(deepest ** 2 > CONTRAST ** 2 * scatter2)) return NaN;
  return sum(lower.map((weight, i) => weight * VELOCITY[first + i])) / sum(lower) + expected;
}

function mean(values: readonly number[]): number {
  return sum(values) / values.length;
}

/** Return a velocity as Python's format +.0f does. */
function signed(velocity: number): string {
  return `${velocity < 0 || Object.is(velocity, -0) ? "-" : "+"}${fixed(Math.abs(velocity), 0)} km/s`;
}
