/** Doppler shifts in pixels of a grid, and measuring them; the counterpart of `anna_onnx.shifting`. */

import { C_KMS } from "./medium.ts";
import { clamp, interpolate } from "./numeric.ts";

export class Shifter {
  private readonly log: Float64Array;
  /** Pixels by which the speed of light would shift. */
  private readonly pixels: Float64Array;
  private readonly isEven: boolean;

  constructor(wavelength: Float64Array) {
    const log = wavelength.map(Math.log);
    const last = log.length - 1;
    this.log = log;
    this.pixels = log.map((_, i) => {
      const [left, right] = [Math.max(i - 1, 0), Math.min(i + 1, last)];
      return (right - left) / (log[right] - log[left]);
    });
    const least = this.pixels.reduce((a, b) => Math.min(a, b));
    this.isEven = this.pixels.reduce((a, b) => Math.max(a, b)) - least < 0.05 * least;
  }

  /** Return a spectrum shifted to the red, interpolated with the cubic through four neighbours. */
  shift(flux: Float64Array, velocity: number, beyond: number): Float64Array {
    const n = flux.length;
    const at = (i: number) => (i < 0 || i >= n ? beyond : flux[i]);
    return flux.map((_, i) => {
      const away = (-velocity / C_KMS) * this.pixels[i];
      const whole = Math.floor(away);
      const t = away - whole;
      const [a, b, c, d] = [-1, 0, 1, 2].map((step) => at(i + whole + step));
      // Newton's form, the nodes 0, 1, -1, 2.
      return b + t * (c - b + (t - 1) * ((a - 2 * b + c) / 2 + ((t + 1) / 6) * (d - 3 * c + 3 * b - a)));
    });
  }

  /** Return the velocity, of `low` to `high` in km/s, at which a spectrum correlates best with its template. */
  measure(lines: Float64Array, template: Float64Array, low: number, high: number): number {
    const n = lines.length;
    const [one, other] = this.isEven ? [lines, template] : [this.toEven(lines), this.toEven(template)];
    const step = (C_KMS * (this.log[n - 1] - this.log[0])) / (n - 1);
    const first = Math.floor(low / step) - 1;
    const last = Math.ceil(high / step) + 1;
    const correlation = Float64Array.from({ length: last - first + 1 }, (_, k) => {
      const lag = first + k;
      let total = 0;
      for (let i = Math.max(lag, 0); i < Math.min(n, n + lag); i++) total += one[i] * other[i - lag];
      return total;
    });
    let peak = 1;
    for (let k = 1; k < correlation.length - 1; k++) if (correlation[k] > correlation[peak]) peak = k;
    const [left, top, right] = [correlation[peak - 1], correlation[peak], correlation[peak + 1]];
    const curvature = Math.min(left - 2 * top + right, -1e-12);
    return (first + peak + clamp((0.5 * (left - right)) / curvature, -0.5, 0.5)) * step;
  }

  /** Interpolate linearly onto even steps of ln(wavelength). */
  private toEven(flux: Float64Array): Float64Array {
    const last = flux.length - 1;
    const pixel = flux.map((_, i) => i);
    return flux.map((_, i) => {
      const position = interpolate(this.log[0] + ((this.log[last] - this.log[0]) * i) / last, this.log, pixel);
      const left = Math.min(Math.floor(position), last - 1);
      return flux[left] + (position - left) * (flux[left + 1] - flux[left]);
    });
  }
}
