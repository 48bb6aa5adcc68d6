/**
 * Columns of a text table, and which of them are the wavelength, the flux, its error and its mask;
 * the counterpart of `anna_onnx.readers.columns`.
 */

import { NoWavelengthError, ReadError } from "../errors.ts";
import type { Medium } from "../spectrum.ts";
import { mediumIn } from "./facts.ts";
import { isStated, splitLog } from "./units.ts";

/** What a column holds. */
export interface Cells {
  readonly values: Float64Array;
  /** null for numbers; `values` are NaN beside words. */
  readonly words: readonly string[] | null;
}

export interface Column extends Cells {
  readonly name: string;
  readonly unit: string;
}

export type ErrorKind = "sigma" | "ivar" | "variance";

/** Which column is what. */
export interface Roles {
  readonly wavelength: Column;
  readonly flux: Column;
  readonly error: Column | null;
  /** What `error` holds. */
  readonly kind: ErrorKind;
  readonly mask: Column | null;
  /** Base when the wavelength column holds logarithms. */
  readonly log: number | null;
  readonly notes: readonly string[];
}

const words = (text: string): string[] => text.trim().split(/\s+/);
const WAVELENGTH = words(`
  wavelength wave lambda lam wl waveobs wave_obs wavelengths wvl wlen wav
  awav wavelength_vac wave_vac wavelength_air wave_air lambda_air lambda_vac lambda_obs
  wave_bary wavelength_vac_bary wave_nm wavelength_nm wavelength_angstrom wave_a lambda_a
  lambda_nm ll angstrom angstroms nm micron spectral_axis spectralaxis dispersion
  arg wavel wavelen wlength wavelength_um wave_um wave_ang obs_wavelength
  wavelength_obs wave_rest opt_wave box_wave`);
const LOG_WAVELENGTH = words(
  "loglam log_lambda log_wave loglambda logwave log_wavelength log10lam log_lam lnlam ln_lambda lnwave ln_wave",
);
const FLUX = words(`
  flux flux_reduced fluxes flux_norm norm_flux normalized_flux normalised_flux nflux
  flam f f_lambda fnu intensity spec spectrum counts fun flux_cal
  flux_calibrated i y flux_density sci_flux bgsub_flux flux_el flux_raw signal
  data sob norm optimal_flux flux_opt opt_flam opt_counts box_flam box_counts
  spec_flux flx fl flux_lambda specificintensity specific_intensity
  flux_tellcorr flux_ergs_cm2_s_a relative_flux net stokes_i cflux
  extracted_opt extracted_rect`);
const SIGMA = words(`
  err error sigma flux_err flux_error e_flux err_flux eflux uncertainty unc
  staterror stat_error stdev std noise flux_sigma sig err_reduced ferr fluxerr
  flux_unc fluxerror errors flux_uncertainty d_flux error_flux uncert stddev uob
  sigma_flux flux_std dflux opt_counts_sig optimal_error err_flux_reduced flux_stddev
  uflux flux_sig spec_err errs
  error_opt error_rect`);
const IVAR = words("ivar flux_ivar inverse_variance invvar inv_var weight_ivar opt_counts_ivar ivar_flux");
const VARIANCE = words("var variance flux_var flux_variance");
const MASK = words(`
  mask and_mask andmask pixmask pixel_flags dq quality qual qual_reduced flags
  flag data_quality dataqual bad badpix bitmask bpm flux_mask opt_mask box_mask
  quality_flag`);
/** Names of columns that are not the flux, even where no other is. */
export const NO_FLUX: ReadonlySet<string> = new Set([
  ...[WAVELENGTH, LOG_WAVELENGTH, SIGMA, IVAR, VARIANCE, MASK].flat(),
  ...words("snr sn s_n signal_to_noise continuum cont sky background model telluric tellurics"),
]);
const INVERSE = /ivar|inv(erse)?_?var/;
const SQUARED = /(^|_)var(iance)?(_|$)/;
const SPECTRAL_UNIT = /^(angstroms?|ang|aa|a|å|nm|nanomet(er|re)s?|um|µm|microns?|micromet(er|re)s?|0\.1\s*nm)$/iu;

/** Return a column's name in lower case, words joined by underscores, for comparison. */
export function keyOf({ name }: Column): string {
  return name
    .toLowerCase()
    .replace(/[[(].*/, "")
    .replace(/[^a-z0-9]+/g, "_")
    .replace(/^_+|_+$/g, "");
}

/** Find the wavelength, flux, error and mask among columns: by name, then, for the wavelength, by unit. */
export function understand(columns: readonly Column[], where: string): Roles {
  const wavelength = findWavelength(columns);
  const flux = findFlux(columns.filter((column) => column !== wavelength));
  const names = columns
    .slice(0, 12)
    .map((column) => column.name)
    .join(", ");
  if (wavelength === null) {
    if (flux !== null) throw new NoWavelengthError(`${where}: columns ${names}: none holds wavelengths`);
    throw new ReadError(`${where}: columns ${names}: no wavelength and no flux among them`);
  }
  if (flux === null) throw new ReadError(`${where}: columns ${names}: no flux among them`);
  const others = columns.filter((column) => column !== wavelength && column !== flux);
  return {
    wavelength,
    flux,
    ...findError(others, flux),
    mask: byName(others, MASK),
    log: logBase(wavelength),
    notes: columns.length > 3 ? [`columns ${wavelength.name} and ${flux.name} of ${columns.length}`] : [],
  };
}

/** Refuse words where numbers are needed; a mask of words says nothing here, and is left out. */
export function withNumbers(roles: Roles, where: string): Roles {
  const { wavelength, flux, error, mask } = roles;
  const words = [wavelength, flux, error].find((column) => column?.words);
  if (words) throw new ReadError(`${where}: column ${words.name} holds no numbers`);
  if (!mask?.words) return roles;
  return { ...roles, mask: null, notes: [...roles.notes, `mask ${mask.name} holds no numbers, left out`] };
}

/** Return the column that holds wavelengths, if any. */
export function findWavelength(columns: readonly Column[]): Column | null {
  return (
    byName(columns, WAVELENGTH) ??
    columns.find((column) => LOG_WAVELENGTH.includes(keyOf(column))) ??
    columns.find((column) => /^(wave|lambda)/.test(keyOf(column)) && !/err|num/.test(keyOf(column))) ?? // wavenumbers
    byName(columns, ["w", "x"]) ??
    columns.find((column) => SPECTRAL_UNIT.test(column.unit.trim())) ??
    null
  );
}

function logBase(column: Column): number | null {
  const { base } = splitLog(column.unit);
  if (isStated(column.unit) && base !== null) return base;
  return LOG_WAVELENGTH.includes(keyOf(column)) ? 10 : null;
}

function findFlux(columns: readonly Column[]): Column | null {
  const named = (column: Column) => /flux/.test(keyOf(column)) && !/err|sig|unc|var|mask|std/.test(keyOf(column));
  return byName(columns, FLUX) ?? columns.find(named) ?? null;
}

/** Return the error of `flux`: one that is named after it comes first. */
function findError(columns: readonly Column[], flux: Column): { error: Column | null; kind: ErrorKind } {
  const key = keyOf(flux);
  const siblings = [
    ...[`${key}_err`, `${key}_error`, `err_${key}`, `e_${key}`, `${key}_sig`],
    ...[key.replaceAll("flux", "err"), key.replaceAll("flux", "fluxerr")],
    ...[`${key}_ivar`, `${key}_var`, `${key}_variance`],
  ];
  const error = byName(columns, [...siblings, ...SIGMA, ...IVAR, ...VARIANCE]);
  return { error, kind: error === null ? "sigma" : kindOf(error) };
}

/** Return what a column of errors holds, by its name. */
function kindOf(error: Column): ErrorKind {
  if (INVERSE.test(keyOf(error))) return "ivar";
  return SQUARED.test(keyOf(error)) ? "variance" : "sigma";
}

/** Return the column whose name stands first in `names`. */
function byName(columns: readonly Column[], names: readonly string[]): Column | null {
  for (const name of names) {
    const found = columns.find((column) => keyOf(column) === name);
    if (found) return found;
  }
  return null;
}

/** Return the unit of a wavelength column: as stated, in brackets after its name, or as a part of it. */
export function unitOf(column: Column): string {
  if (isStated(column.unit)) return splitLog(column.unit).inner;
  const bracket = /[[(]([^\])]*)[\])]/.exec(column.name);
  if (bracket && SPECTRAL_UNIT.test(bracket[1].trim())) return bracket[1].trim();
  const last = keyOf(column).split("_").at(-1) ?? "";
  if (SPECTRAL_UNIT.test(last)) return last;
  return keyOf(column) === "waveobs" ? "nm" : ""; // iSpec writes nm and does not say so
}

/** Return the medium that a wavelength column's name or unit states. */
export function mediumOf(column: Column, columns: readonly Column[]): Medium | null {
  const key = keyOf(column);
  if (key === "awav") return "air";
  const hasAir = columns.some((other) => keyOf(other) === `${key}_air`);
  return (key === "wave" || key === "wavelength") && hasAir
    ? "vacuum"
    : (mediumIn(column.name) ?? mediumIn(column.unit));
}
