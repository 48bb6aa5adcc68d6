/** Wavelength units, in every spelling that files use; the counterpart of `anna_onnx.readers.units`. */

import { NoWavelengthError, ReadError } from "../errors.ts";
import { general } from "../format.ts";

/** Spellings in lower case, without blanks, dots and trailing s. */
const SPELLINGS: readonly (readonly [number, string])[] = [
  [
    1,
    "angstrom angstroem ångström ang angstr a aa å \u212b 0.1nm agstrom 1e-10m 10**-10m 10^-10m 10-10m 1.0e-10m 1.e-10m 10**(-10)m 10^(-10)m",
  ],
  [10, "nm nanometer nanometre nanom 1e-9m 10**-9m 10**(-9)m 10-9m"],
  [1e4, "um µm μm micron micrometer micrometre mum mu micro 1e-6m"],
  [1e7, "mm millimeter millimetre"],
  [1e8, "cm centimeter centimetre"],
  [1e10, "m meter metre"],
];
const ANGSTROMS = new Map(
  SPELLINGS.flatMap(([factor, names]) => names.split(" ").map((name) => [name, factor] as const)),
);
const REFUSED: readonly (readonly [string, string])[] = [
  ["frequencies", "hz khz mhz ghz thz"],
  ["energies", "ev kev mev erg j"],
  ["wavenumbers", "1/cm cm-1 cm**-1 cm^-1 1/m m-1 kayser cm^(-1) 1/um um-1"],
];
const NOT_WAVELENGTH = new Map(
  REFUSED.flatMap(([what, names]) => names.split(" ").map((name) => [name, what] as const)),
);
const PIXELS = new Set("pixel pix px channel bin deg degree arcsec".split(" "));
const VELOCITY = /^(k?m)(\/|\*\*-1|per|\.)?s(ec)?(ond)?(\^?\(?-1\)?|\*\*-1)?$/;
const LOG = /^(log10|log|dex|ln)[^\p{L}\p{N}_]*(.*?)[^\p{L}\p{N}_]*$/u;
const UNSTATED = new Set(["", "none", "unknown", "undefined", "-", "--", "1", "null", "wavelength", "lambda"]);

export function isStated(unit: string): boolean {
  return !UNSTATED.has(unit.trim().toLowerCase());
}

/** Return whether a word is a unit of wavelength. */
export function isWavelengthUnit(unit: string): boolean {
  return lengthOf(plain(unit)) !== undefined;
}

function lengthOf(spelled: string): number | undefined {
  return ANGSTROMS.get(spelled) ?? ANGSTROMS.get(spelled.replace(/s$/, ""));
}

/** Return the length of a wavelength unit in Angstrom. */
function angstromsPer(unit: string, where: string): number {
  const spelled = plain(unit);
  const factor = lengthOf(spelled);
  if (factor !== undefined) return factor;
  for (const known of [spelled, spelled.replace(/s$/, "")]) {
    if (PIXELS.has(known))
      throw new NoWavelengthError(`${where}: the axis counts pixels (unit '${unit}'), needed wavelengths`);
    if (known === "velocity") throw new ReadError(`${where}: the axis holds velocities, needed wavelengths`);
    const what = NOT_WAVELENGTH.get(known);
    if (what) throw new ReadError(`${where}: the axis holds ${what} (unit '${unit}'), needed wavelengths`);
  }
  if (VELOCITY.test(spelled))
    throw new ReadError(`${where}: the axis holds velocities (unit '${unit}'), needed wavelengths`);
  throw new ReadError(`${where}: wavelength unit '${unit}' is not known`);
}

function plain(unit: string): string {
  return unit
    .replace(/\b(?:in\s+)?(?:air|vac(?:uum)?)\b/gi, "")
    .replace(/\s+/g, "")
    .replace(/^[[\]()'".,;]+|[[\]()'".,;]+$/g, "")
    .replace("angstroms", "angstrom")
    .toLowerCase();
}

/** Return the base of a logarithmic unit, or null, and the unit inside: `log10(nm)` -> 10, `nm`. */
export function splitLog(unit: string): { base: number | null; inner: string } {
  const found = LOG.exec(plain(unit));
  if (!found) return { base: null, inner: unit };
  return { base: found[1] === "ln" ? Math.E : 10, inner: found[2] };
}

/** Convert wavelengths to Angstrom; a unit that is not stated is `usual`, or guessed from their size. */
export function toAngstrom(
  values: Float64Array,
  unit: string,
  where: string,
  usual?: string,
): { wavelength: Float64Array; notes: string[] } {
  const stated = isStated(unit) ? unit : usual;
  const chosen = stated ?? guessUnit(values, where);
  const factor = angstromsPer(chosen, where);
  return {
    wavelength: factor === 1 ? values : values.map((value) => value * factor),
    notes: stated === undefined ? [`wavelength unit not stated, taken as ${chosen} from the size of the values`] : [],
  };
}

/** Return the unit of optical or infrared wavelengths from their size. */
export function guessUnit(values: Float64Array, where: string): string {
  if (values.some((value) => value < 0))
    throw new NoWavelengthError(`${where}: the axis holds negative values (velocities?), needed wavelengths`);
  const good = values.filter((value) => Number.isFinite(value) && value > 0);
  if (good.length < 2 || good.length < 0.5 * values.length)
    throw new NoWavelengthError(`${where}: the axis holds no positive values, needed wavelengths`);
  if (good[0] === 1 && good.every((value, i) => value === i + 1))
    throw new NoWavelengthError(`${where}: the axis counts pixels, needed wavelengths`);
  const sorted = good.slice().sort();
  const middle = sorted[sorted.length >> 1];
  if (middle >= 3000 && middle <= 60000) return "Angstrom";
  // From 900 they may be Angstrom in the far ultraviolet; below 9 nm no model of a star begins.
  if (middle >= 300 && middle <= 1100 && sorted[0] >= 9 && sorted[0] < 900) return "nm";
  if (sorted[0] > 3.3 && sorted[sorted.length - 1] < 4.6)
    throw new ReadError(`${where}: no wavelength unit stated, ${general(middle)} may be microns or log10 of Angstrom`);
  if (middle >= 0.3 && middle <= 6) return "um";
  if (middle >= 3e-7 && middle <= 6e-6) return "m";
  throw new ReadError(`${where}: no wavelength unit stated and values near ${general(middle)} do not tell it`);
}
