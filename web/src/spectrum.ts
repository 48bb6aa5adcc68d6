/** A spectrum as it left a file; the counterpart of `anna_onnx.spectrum`. */

import { ReadError } from "./errors.ts";

export type Medium = "air" | "vacuum" | "unknown";
export type Frame = "topocentric" | "barycentric" | "rest" | "unknown";

export interface Source {
  readonly file: string;
  readonly hdu: number | null;
  readonly row: number | null;
}

export function describe(source: Source): string {
  const hdu = source.hdu === null ? "" : `[${source.hdu}]`;
  const row = source.row === null ? "" : ` row ${source.row}`;
  return `${source.file}${hdu}${row}`;
}

/** What is known of a spectrum beside its numbers. */
export interface Facts {
  readonly medium: Medium;
  readonly frame: Frame;
  readonly id: string;
  /** What was assumed while reading. */
  readonly notes: readonly string[];
  /** Resolving power, wavelength / FWHM. */
  readonly resolution: number | null;
  /** Of the star in `frame`, km/s. */
  readonly radialVelocity: number | null;
  /** The instrument, and the resolving power that its spectra have. */
  readonly nominal: readonly [string, number] | null;
}

export interface Spectrum extends Omit<Facts, "nominal"> {
  /** Angstrom, in `medium`, positive, strictly ascending. */
  readonly wavelength: Float64Array;
  readonly flux: Float64Array;
  /** Standard deviation of the flux. */
  readonly sigma: Float64Array | null;
  /** 1 where the flux must not be used. */
  readonly bad: Uint8Array;
  readonly source: Source;
}

/** A file, or one of its spectra, that cannot be read. */
export interface Unread {
  readonly source: Source;
  /** Why not. */
  readonly problem: string;
}

/** What comes of reading. */
export type Reading = Spectrum | Unread;

export function isSpectrum(reading: Reading): reading is Spectrum {
  return "flux" in reading;
}

export const NOTHING_KNOWN: Facts = {
  medium: "unknown",
  frame: "unknown",
  id: "",
  notes: [],
  resolution: null,
  radialVelocity: null,
  nominal: null,
};

/** Make a spectrum, refusing arrays that do not make one. */
export function makeSpectrum(
  wavelength: Float64Array,
  flux: Float64Array,
  sigma: Float64Array | null,
  bad: Uint8Array,
  facts: Facts,
  source: Source,
): Spectrum {
  const where = describe(source);
  const n = wavelength.length;
  if (n < 2) throw new ReadError(`${where}: ${n} pixels, a spectrum needs at least 2`);
  if (!wavelength.every(Number.isFinite) || wavelength[0] <= 0)
    throw new ReadError(`${where}: wavelengths must be finite and positive`);
  for (let i = 1; i < n; i++)
    if (!(wavelength[i] > wavelength[i - 1])) throw new ReadError(`${where}: wavelengths must ascend strictly`);
  const unusable = bad.map((value, i) =>
    value || !Number.isFinite(flux[i]) || (sigma !== null && !(sigma[i] > 0 && Number.isFinite(sigma[i]))) ? 1 : 0,
  );
  const { nominal: _, ...known } = facts;
  return { ...known, wavelength, flux, sigma, bad: unusable, source };
}
