/** The model: the sidecar of the bundle as JSON, and the network. Written by `anna_onnx.page`. */

import type { Normalization } from "./continuum.ts";
import type { FitLimits } from "./fit.ts";
import { fromLetters } from "./letters.ts";
import type { Novelty } from "./novelty.ts";
import type { Hull } from "./recognition.ts";
import type { Way } from "./resampling.ts";
import type { Frame } from "./spectrum.ts";

/** One quantity that the network infers. */
export interface Label {
  readonly name: string;
  readonly unit: string;
  readonly low: number;
  readonly high: number;
}

/** What the training spectra were like, and so what a spectrum must be made like. */
export interface Preparation {
  readonly resolution: number | null;
  readonly frame: Frame;
  readonly velocity_range: readonly [number, number] | null;
  readonly normalize: Normalization | null;
  readonly min_coverage: number;
  /** Absent in older models. */
  readonly most_missing?: number | null;
  readonly snr_range: readonly [number, number] | null;
  readonly interpolation: Way;
  /** First and last of pixels that no training spectrum had. */
  readonly unseen: readonly (readonly [number, number])[];
}

/** Factors on sigma that make 68 % errors, for every S/N bin and label. */
export interface Calibration {
  readonly snr: Float64Array;
  /** Shape (bin, label). */
  readonly factors: readonly Float64Array[];
}

/** A few spectra and what the training machine inferred for them. */
export interface SelfTest {
  /** Shape (n, pixel), (n, label): one after the other. */
  readonly flux: Float32Array;
  readonly labels: Float32Array;
}

export interface Model {
  readonly name: string;
  readonly sha256: string;
  readonly version: string;
  readonly labels: readonly Label[];
  readonly grid: { readonly wavelength: Float64Array; readonly medium: "air" | "vacuum" };
  readonly preparation: Preparation;
  readonly calibration: Calibration;
  readonly novelty: Novelty | null;
  readonly fit_limits: FitLimits | null;
  readonly hull: Hull | null;
  readonly selftest: SelfTest | null;
  readonly about: About;
}

/** Where the model comes from and how good it is. */
export interface About {
  readonly date: string;
  readonly architecture: string;
  readonly tested_on: string;
  /** By label; empty when not measured. */
  readonly metrics: Record<string, { bias: number; robust_scatter: number; rms: number; coverage_68: number }>;
  /** What it was trained on: name of the file and sha256. */
  readonly data: Record<string, { file: string; sha256: string }>;
  readonly versions: Record<string, string>;
  /** What its maker has to say, in Markdown. */
  readonly notes: string;
}

/** The files of the page, each put here by a script of its own so that the page also opens from a disk. */
export interface PageFiles {
  /** The sidecar. */
  model: Record<string, any>;
  /** The network and onnxruntime's WebAssembly: gzip in letters. */
  network: string;
  engine: string;
}

/** Return the model that the page carries. */
export function readModel(raw: PageFiles["model"]): Model {
  const { calibration, grid, novelty, selftest } = raw;
  return {
    ...(raw as Model),
    grid: { wavelength: float64(grid.wavelength), medium: grid.medium },
    calibration: {
      snr: Float64Array.from(calibration.snr),
      factors: calibration.factors.map((row: number[]) => Float64Array.from(row)),
    },
    novelty: novelty && {
      mean: float64(novelty.mean),
      components: float32(novelty.components),
      noise: Float64Array.from(novelty.noise),
      threshold: Float64Array.from(novelty.threshold),
    },
    selftest: selftest && { flux: float32(selftest.flux), labels: float32(selftest.labels) },
  };
}

/** Return `6625.0-6825.0 Å (air)`. */
export function gridText({ wavelength, medium }: Model["grid"]): string {
  return `${wavelength[0].toFixed(1)}-${wavelength[wavelength.length - 1].toFixed(1)} Å (${medium})`;
}

/** Unpack gzip; null when it holds more than `limit` bytes. */
export async function gunzip(
  packed: Uint8Array<ArrayBuffer>,
  limit = Infinity,
): Promise<Uint8Array<ArrayBuffer> | null> {
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    pieces.push(piece.value as Uint8Array<ArrayBuffer>);
    size += piece.value.length;
    if (size > limit) {
      await reader.cancel();
      return null;
    }
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

function float64(text: string): Float64Array {
  return new Float64Array(fromLetters(text).buffer);
}

function float32(text: string): Float32Array {
  return new Float32Array(fromLetters(text).buffer);
}
