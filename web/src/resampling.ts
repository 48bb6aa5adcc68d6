/** The way of a spectrum onto a wavelength grid; the counterpart of `anna_onnx.resampling`. */

import { clamp, differences, median, searchSorted, sum } from "./numeric.ts";

/** Full width at half maximum of a Gaussian of standard deviation 1. */
export const FWHM = 2 * Math.sqrt(2 * Math.log(2));

/** Of interpolating between pixels; linear as in the old program. */
export type Way = "cubic" | "linear";

/** Times as wide as its neighbour, a step between pixels is too uneven for a polynomial. */
const UNEVEN = 2;

/** Times as large as the spectrum's, a pixel is an average of these. */
const LARGER = 1.1;

/** A spectrum on other wavelengths; NaN where not valid. */
export interface Resampled {
  readonly flux: Float64Array;
  readonly sigma: Float64Array | null;
  /** 1 where good pixels cover. */
  readonly valid: Uint8Array;
}

/** Return the edges of pixels from their centres: halfway between neighbours. */
export function pixelEdges(center: Float64Array): Float64Array {
  const n = center.length;
  const edges = new Float64Array(n + 1);
  for (let i = 1; i < n; i++) edges[i] = 0.5 * (center[i] + center[i - 1]);
  edges[0] = 2 * center[0] - edges[1];
  edges[n] = 2 * center[n - 1] - edges[n - 1];
  return edges;
}

/** Return the usual width of the pixels between two wavelengths. */
export function pixelWidth(wavelength: Float64Array, first: number, last: number): number {
  const low = Math.min(searchSorted(wavelength, first), wavelength.length - 2);
  const inside = wavelength.subarray(low, Math.max(searchSorted(wavelength, last) + 1, low + 2));
  if (findGaps(inside).length) {
    const step = differences(inside).sort();
    return step[step.length >> 1];
  }
  return (inside[inside.length - 1] - inside[0]) / (inside.length - 1);
}

/**
 * Return the indices of the pixels after which a gap comes: a step more than
 * five times as wide as the usual steps on either side of it.
 */
export function findGaps(wavelength: Float64Array): number[] {
  const step = differences(wavelength);
  const n = step.length;
  const [least, most] = step.reduce(([a, b], s) => [Math.min(a, s), Math.max(b, s)], [Infinity, -Infinity]);
  if (n < 3 || most <= 5 * least) return [];
  const reach = 8;
  const mirrored = (i: number) => {
    const inside = ((i % (2 * n)) + 2 * n) % (2 * n);
    return step[inside < n ? inside : 2 * n - 1 - inside];
  };
  const usual = (start: number) => median(Array.from({ length: reach }, (_, i) => mirrored(start + i)));
  const gaps: number[] = [];
  for (let i = 0; i < n; i++)
    // Only a step wider than five times the least can be one, and few are.
    if (step[i] > 5 * least && step[i] > 5 * Math.max(usual(i - reach), usual(i + 1))) gaps.push(i);
  return gaps;
}

/**
 * Work out the way from one wavelength vector to another.
 *
 * @param sharp Whether averages give the flux in the middle of a pixel, not the mean over it.
 */
export function resampler(wavelength: Float64Array, target: Float64Array, way: Way = "cubic", sharp = true): Resampler {
  const first = target[0];
  const last = target[target.length - 1];
  const width = pixelWidth(target, first, last);
  if (wavelength.length === target.length && wavelength.every((w, i) => Math.abs(w - target[i]) < 1e-4 * width))
    return new Identity(target.length);
  const ratio = width / pixelWidth(wavelength, first, last);
  if (ratio > LARGER) return new Average(wavelength, target, ratio, sharp && way === "cubic");
  return new Interpolation(wavelength, target, ratio, way);
}

/** The way of spectra from one wavelength vector to another: every output pixel is a mean of input pixels. */
export abstract class Resampler {
  /** @param ratio Usual width of an output pixel in input pixels. */
  constructor(readonly ratio: number) {}

  /** 1 where pixels of the input, good or bad, cover the output. */
  abstract readonly covers: Uint8Array;
  /** Sum of the weights of the input pixels, 1 where covered wholly. */
  protected abstract readonly share: Float64Array;
  /** Smallest share of good pixels that makes an output pixel usable. */
  protected abstract readonly enough: number;

  protected abstract mean(values: Float64Array): Float64Array;
  protected abstract variance(values: Float64Array): Float64Array;

  /** Return the sums of the weights of the good pixels, which are 1. */
  protected shares(good: Float64Array): Float64Array {
    return this.mean(good);
  }

  /**
   * Resample a spectrum.
   *
   * @param bad 1 where a pixel must not be used; null when all are good.
   */
  apply(flux: Float64Array, sigma: Float64Array | null, bad: Uint8Array | null): Resampled {
    let valid = this.covers;
    let share = this.share;
    if (bad !== null) {
      flux = flux.map((value, i) => (bad[i] ? 0 : value));
      sigma = sigma && sigma.map((value, i) => (bad[i] ? 0 : value));
      share = this.shares(Float64Array.from(bad, (value) => (value ? 0 : 1)));
      valid = this.covers.map((covered, i) => (covered && share[i] >= this.enough ? 1 : 0));
    }
    const weight = share.map((value, i) => (valid[i] ? value : NaN));
    const variance = sigma && this.variance(sigma.map((value) => value * value));
    return {
      flux: this.mean(flux).map((value, i) => value / weight[i]),
      sigma: variance && variance.map((value, i) => Math.sqrt(value) / weight[i]),
      valid,
    };
  }
}

/** The way of spectra that are on the grid already. */
export class Identity extends Resampler {
  readonly covers: Uint8Array;
  protected readonly share: Float64Array;
  protected readonly enough = 1;

  constructor(n: number) {
    super(1);
    this.covers = new Uint8Array(n).fill(1);
    this.share = new Float64Array(n).fill(1);
  }

  protected mean(values: Float64Array): Float64Array {
    return values;
  }

  protected variance(values: Float64Array): Float64Array {
    return values;
  }
}

/**
 * Interpolation with the quintic through the centres of six pixels; of the inner two neither may be bad.
 *
 * Where one of the six is bad, lies behind a gap, or much nearer or farther than the inner two from each other,
 * it is the cubic through four, and where one of these is, a straight line.
 */
export class Interpolation extends Resampler {
  readonly covers: Uint8Array;
  protected readonly share: Float64Array;
  protected readonly enough = 1 - 1e-9;
  /** The left one of the inner pixels. */
  private readonly left: Int32Array;
  /** How far from it to its neighbour, 0 to 1. */
  private readonly place: Float64Array;
  /** Of the six pixels. */
  private readonly weights: readonly (readonly number[])[];
  /** The same where only four of them can be used. */
  private readonly cubic: readonly (readonly number[])[];

  /**
   * @param smooth Whether neighbours have their noise in common, which interpolation then does not lower: after a `Degrader`.
   */
  constructor(
    wavelength: Float64Array,
    target: Float64Array,
    ratio: number,
    way: Way = "cubic",
    private readonly smooth = false,
  ) {
    super(ratio);
    const n = wavelength.length;
    const gaps = new Set(findGaps(wavelength));
    const step = differences(wavelength);
    this.left = Int32Array.from(target, (at) => clamp(searchSorted(wavelength, at), 1, n - 1) - 1);
    this.place = target.map((at, i) => clamp((at - wavelength[this.left[i]]) / step[this.left[i]], 0, 1));
    this.covers = Uint8Array.from(target, (at, i) => {
      const inGap = gaps.has(this.left[i]) && this.place[i] > 0 && this.place[i] < 1;
      return at >= wavelength[0] && at <= wavelength[n - 1] && !inGap ? 1 : 0;
    });
    this.share = new Float64Array(target.length).fill(1);
    const cubic: number[][] = [];
    this.weights = Array.from(this.place, (t, i) => {
      const left = this.left[i];
      const outer = (offset: number) => step[left + offset] / step[left];
      const even = (offset: number) => outer(offset) < UNEVEN && outer(offset) > 1 / UNEVEN && !gaps.has(left + offset);
      const four = way === "cubic" && even(-1) && even(1);
      const six = four && even(-2) && even(2);
      const nodes = [-outer(-1) - outer(-2), -outer(-1), 0, 1, 1 + outer(1), 1 + outer(1) + outer(2)];
      cubic.push(four ? [0, ...lagrange(nodes.slice(1, 5), t), 0] : straight(t));
      return six ? lagrange(nodes, t) : cubic[i];
    });
    this.cubic = cubic;
  }

  /** By how much the variance of the noise is lowered, in the mean. */
  get lowered(): number {
    const all = this.variance(new Float64Array(this.left[this.left.length - 1] + 2).fill(1));
    return sum(all) / all.length;
  }

  override apply(flux: Float64Array, sigma: Float64Array | null, bad: Uint8Array | null): Resampled {
    const full = super.apply(flux, sigma, bad);
    if (bad === null) return full;
    this.left.forEach((left, i) => {
      const isFour = !(bad[left - 1] || bad[left + 2]);
      if (!full.valid[i] || (isFour && !(bad[left - 2] || bad[left + 3]))) return;
      const weights = isFour ? this.cubic[i] : straight(this.place[i]);
      // A pixel that does not count may be NaN, or not there.
      const one = (values: Float64Array, k: number) => (weights[k] ? values[left - 2 + k] : 0);
      full.flux[i] = sum(weights.map((weight, k) => weight * one(flux, k)));
      if (!sigma || !full.sigma) return;
      const noise = this.smooth ? straight(this.place[i]) : weights.map((weight) => weight ** 2);
      full.sigma[i] = Math.sqrt(sum(noise.map((weight, k) => weight * one(sigma, k) ** 2)));
    });
    return full;
  }

  protected mean(values: Float64Array): Float64Array {
    return this.sum(values, (weight) => weight);
  }

  protected variance(values: Float64Array): Float64Array {
    return this.smooth ? this.between(values) : this.sum(values, (weight) => weight ** 2);
  }

  protected override shares(good: Float64Array): Float64Array {
    // What a bad pixel's weight lacks, the negative one of another must not make up for.
    return this.between(good);
  }

  /** Interpolate on straight lines. */
  private between(values: Float64Array): Float64Array {
    return this.place.map((t, i) => (1 - t) * values[this.left[i]] + t * values[this.left[i] + 1]);
  }

  private sum(values: Float64Array, factor: (weight: number) => number): Float64Array {
    const last = values.length - 1;
    return Float64Array.from(this.left, (left, i) =>
      this.weights[i].reduce((total, weight, k) => total + factor(weight) * values[clamp(left + k - 2, 0, last)], 0),
    );
  }
}

/** Return the weights of six pixels for a straight line between the inner two. */
function straight(t: number): number[] {
  return [0, 0, 1 - t, t, 0, 0];
}

/** Return the weights of values at some nodes for the polynomial through them, at t. */
function lagrange(nodes: readonly number[], t: number): number[] {
  return nodes.map((own) => nodes.reduce((w, other) => (other === own ? w : (w * (t - other)) / (own - other)), 1));
}

/**
 * The mean flux density over each output pixel (Carnall 2017, arXiv:1705.05165);
 * half a pixel of good flux is enough.
 *
 * Where flux curves, its mean over some width is not the flux in the middle: lines are broadened by the second moment
 * of the weights. Where sharp, the curvature from pixel to pixel takes that out again, pixels giving their neighbours
 * as much as they get, except beside a pixel that is not valid.
 */
export class Average extends Resampler {
  readonly covers: Uint8Array;
  protected readonly share: Float64Array;
  protected readonly enough = 0.5;
  /** Of the input pixels, with a pixel of its own for every gap. */
  private readonly width: Float64Array;
  private readonly widthOut: Float64Array;
  /** Input pixels before which a gap was put. */
  private readonly holes: ReadonlySet<number>;
  /** The input pixel that holds each edge of the output, and how much of it lies before the edge. */
  private readonly pixel: Int32Array;
  private readonly before: Float64Array;
  /** Of each pixel the weights of its differences from the left and the right neighbour. */
  private readonly sides: readonly (readonly [number, number])[] | null;

  constructor(wavelength: Float64Array, target: Float64Array, ratio: number, sharp: boolean) {
    super(ratio);
    const gaps = findGaps(wavelength);
    const edges = edgesWithGaps(wavelength, gaps);
    const edgesOut = pixelEdges(target);
    this.holes = new Set(gaps.map((gap) => gap + 1));
    this.width = differences(edges);
    this.widthOut = differences(edgesOut);
    this.pixel = Int32Array.from(edgesOut, (edge) =>
      clamp(searchSorted(edges, edge, "right") - 1, 0, this.width.length - 1),
    );
    this.before = edgesOut.map((edge, i) => {
      const width = Math.max(this.width[this.pixel[i]], Number.EPSILON); // none, where two wavelengths hardly differ
      return clamp((edge - edges[this.pixel[i]]) / width, 0, 1);
    });
    const share = this.mean(new Float64Array(wavelength.length).fill(1));
    this.share = share.map((value) => (Math.abs(value - 1) < 1e-9 ? 1 : value));
    const [first, last] = [wavelength[0], wavelength[wavelength.length - 1]];
    this.covers = Uint8Array.from(target, (at, i) =>
      at >= first && at <= last && this.share[i] >= this.enough ? 1 : 0,
    );
    this.sides = sharp ? this.neighbours(wavelength, target) : null;
  }

  override apply(flux: Float64Array, sigma: Float64Array | null, bad: Uint8Array | null): Resampled {
    const mean = super.apply(flux, sigma, bad);
    if (this.sides === null) return mean;
    const sharp = { flux: mean.flux.slice(), sigma: mean.sigma && mean.sigma.slice(), valid: mean.valid };
    this.sides.forEach(([left, right], i) => {
      if (!mean.valid[i - 1] || !mean.valid[i] || !mean.valid[i + 1]) return;
      const weights = [-left, 1 + left + right, -right];
      const sumNear = (values: Float64Array, power: number) =>
        sum(weights.map((weight, k) => (weight * values[i - 1 + k]) ** power));
      sharp.flux[i] = sumNear(mean.flux, 1);
      if (mean.sigma && sharp.sigma) sharp.sigma[i] = Math.sqrt(sumNear(mean.sigma, 2));
    });
    return sharp;
  }

  private neighbours(wavelength: Float64Array, target: Float64Array): [number, number][] {
    const from = target[0];
    const first = this.mean(wavelength.map((w) => w - from));
    const second = this.mean(wavelength.map((w) => (w - from) ** 2));
    const moment = target.map((w, i) => {
      const at = w - from;
      return this.covers[i] ? (second[i] - 2 * at * first[i]) / this.share[i] + at ** 2 : 0;
    });
    const step = differences(target);
    const between = step.map((width, i) => (moment[i] + moment[i + 1]) / 4 / width);
    return Array.from(this.widthOut, (width, i) => {
      const [before, after] = [step[i - 1], step[i]];
      const even = before < UNEVEN * after && after < UNEVEN * before;
      // Elsewhere the input's pixels are the larger ones.
      const sound = even && moment[i] <= ((LARGER * width) / 2) ** 2;
      return sound ? [between[i - 1] / width, between[i] / width] : [0, 0];
    });
  }

  protected mean(values: Float64Array): Float64Array {
    const amount = this.spread(values).map((value, i) => value * this.width[i]);
    return this.integrate(amount).map((value, i) => value / this.widthOut[i]);
  }

  protected variance(values: Float64Array): Float64Array {
    // A pixel that two outputs share gives each its part of the variance: no information is counted twice.
    const amount = this.spread(values).map((value, i) => value * this.width[i] ** 2);
    return this.integrate(amount).map((value, i) => value / this.widthOut[i] ** 2);
  }

  /** Put an empty pixel into every gap. */
  private spread(values: Float64Array): Float64Array {
    if (this.holes.size === 0) return values.slice();
    const spread = new Float64Array(this.width.length);
    for (let i = 0, at = 0; i < values.length; i++) {
      if (this.holes.has(i)) at++;
      spread[at++] = values[i];
    }
    return spread;
  }

  /** Sum the amounts in the input pixels over the output pixels. */
  private integrate(amount: Float64Array): Float64Array {
    return this.widthOut.map((_, i) => {
      let total = 0;
      for (let pixel = this.pixel[i]; pixel < this.pixel[i + 1]; pixel++) total += amount[pixel];
      return total - this.before[i] * amount[this.pixel[i]] + this.before[i + 1] * amount[this.pixel[i + 1]];
    });
  }
}

/** Return pixel edges with a pixel of its own for every gap. */
function edgesWithGaps(wavelength: Float64Array, gaps: readonly number[]): Float64Array {
  const edges = pixelEdges(wavelength);
  const step = differences(wavelength);
  const after = new Map<number, number>();
  for (const gap of gaps) {
    const usual = Math.min(step[Math.max(gap - 1, 0)], step[Math.min(gap + 1, step.length - 1)]);
    const half = Math.min(0.5 * usual, 0.25 * step[gap]);
    edges[gap + 1] = wavelength[gap] + half;
    after.set(gap + 1, wavelength[gap + 1] - half);
  }
  const all: number[] = [];
  edges.forEach((edge, i) => {
    all.push(edge);
    const next = after.get(i);
    if (next !== undefined) all.push(next);
  });
  return Float64Array.from(all);
}

/**
 * The way of spectra to a lower resolving power: a Gaussian in ln(wavelength),
 * sampled four times a standard deviation.
 */
export class Degrader {
  /** Of what `apply` returns. */
  readonly wavelength: Float64Array;
  private readonly onto: Resampler;
  private readonly kernel: Float64Array;
  /** Steps finer than the pixels share the noise of a pixel, which interpolation lowers. */
  private readonly shared: Float64Array;

  constructor(wavelength: Float64Array, resolution: number, target: number) {
    const width = Math.sqrt(target ** -2 - resolution ** -2) / FWHM;
    const [bluest, reddest] = [wavelength[0], wavelength[wavelength.length - 1]];
    const first = Math.log(bluest);
    const span = Math.log(reddest) - first;
    const n = Math.max(2, Math.floor(span / (width / 4)) + 1);
    this.wavelength = Float64Array.from({ length: n }, (_, i) => Math.exp(first + (i * span) / (n - 1)));
    [this.wavelength[0], this.wavelength[n - 1]] = [bluest, reddest]; // which rounding may put outside
    this.onto = resampler(wavelength, this.wavelength, "cubic", false);
    const reach = 16; // four standard deviations
    const kernel = Float64Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-0.5 * ((i - reach) / 4) ** 2));
    const total = kernel.reduce((a, b) => a + b);
    this.kernel = kernel.map((value) => value / total);
    this.shared = new Float64Array(n).fill(1);
    if (!(this.onto instanceof Interpolation)) return;
    const lowered = this.onto.lowered;
    const near = stepsNear(wavelength, this.wavelength);
    this.shared = near.map((step, i) => {
      const [left, right] = [Math.max(i - 1, 0), Math.min(i + 1, n - 1)];
      return (step * (right - left)) / (this.wavelength[right] - this.wavelength[left]) / lowered;
    });
  }

  apply(flux: Float64Array, sigma: Float64Array | null, bad: Uint8Array | null): Resampled {
    const sampled = this.onto.apply(flux, sigma, bad);
    const usable = sampled.valid;
    const weight = convolve(Float64Array.from(usable), this.kernel);
    const valid = usable.map((good, i) => (good && weight[i] > 0.5 ? 1 : 0));
    const only = (values: Float64Array) => values.map((value, i) => (usable[i] ? value : 0));
    const share = weight.map((value, i) => (valid[i] ? value : NaN));
    const smooth = convolve(only(sampled.flux), this.kernel).map((value, i) => value / share[i]);
    if (sampled.sigma === null) return { flux: smooth, sigma: null, valid };
    const squares = only(sampled.sigma).map((value, i) => this.shared[i] * value * value);
    const variance = convolve(
      squares,
      this.kernel.map((value) => value * value),
    );
    return {
      flux: smooth,
      sigma: variance.map((value, i) => Math.sqrt(value) / share[i]),
      valid,
    };
  }
}

/** Return the step between the two pixels around each target; where a gap is, that before it. */
function stepsNear(wavelength: Float64Array, target: Float64Array): Float64Array {
  const step = differences(wavelength);
  for (const gap of findGaps(wavelength)) step[gap] = step[Math.max(gap - 1, 0)];
  return target.map((value) => step[clamp(searchSorted(wavelength, value), 1, step.length) - 1]);
}

/** Convolve with an odd kernel; the result is as long as `values`. */
function convolve(values: Float64Array, kernel: Float64Array): Float64Array {
  const reach = (kernel.length - 1) / 2;
  return values.map((_, i) => {
    let total = 0;
    const last = Math.min(i + reach, values.length - 1);
    for (let j = Math.max(i - reach, 0); j <= last; j++) total += values[j] * kernel[i - j + reach];
    return total;
  });
}
