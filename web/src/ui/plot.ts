/** The plot of one spectrum on the model's grid. */

import { general } from "../format.ts";
import { clamp, nearestRank, searchSorted } from "../numeric.ts";
import { draw } from "./dom.ts";
import { numberText } from "./words.ts";

const MARGIN = { left: 56, right: 10, top: 8, bottom: 36 };

type Range = readonly [number, number];

/**
 * An SVG plot that can be zoomed: drag over a range, double click for the whole;
 * with the keyboard arrows, plus, minus and Home.
 */
export class SpectrumPlot {
  private readonly svg = draw("svg", { role: "img", tabindex: 0, "aria-describedby": "plot-keys" });
  private flux: Float32Array | null = null;
  private view: Range;
  private scaleX: (wavelength: number) => number = (w) => w;
  /** The nearest that the training spectra come to it. */
  private known: Float64Array | null = null;
  private showKnown = true;
  private from: number | null = null;

  /**
   * @param wavelength Of the grid, Angstrom.
   */
  constructor(
    private readonly host: HTMLElement,
    private readonly wavelength: Float64Array,
    private readonly axisTitle: string,
  ) {
    this.view = this.whole;
    host.append(this.svg);
    new ResizeObserver(() => this.render()).observe(host);
    this.svg.addEventListener("pointermove", (event) => this.onMove(event as PointerEvent));
    this.svg.addEventListener("pointerdown", (event) => this.onDown(event as PointerEvent));
    this.svg.addEventListener("pointerup", (event) => this.onUp(event as PointerEvent));
    this.svg.addEventListener("pointerleave", () => this.clearCursor());
    this.svg.addEventListener("dblclick", () => this.zoomAll());
    this.svg.addEventListener("keydown", (event) => this.onKey(event as KeyboardEvent));
  }

  /** Show a spectrum; null when there is none to show. */
  show(flux: Float32Array | null, known: Float64Array | null, description: string): void {
    this.flux = flux;
    this.known = known;
    this.svg.setAttribute("aria-label", description);
    this.render();
  }

  setKnown(shown: boolean): void {
    this.showKnown = shown;
    this.render();
  }

  /** Zoom about the middle; a factor below 1 zooms in. */
  zoom(factor: number): void {
    const [first, last] = this.view;
    const half = ((last - first) / 2) * factor;
    this.look((first + last) / 2 - half, (first + last) / 2 + half);
  }

  zoomAll(): void {
    this.look(...this.whole);
  }

  private get whole(): Range {
    return [this.wavelength[0], this.wavelength[this.wavelength.length - 1]];
  }

  private pan(fraction: number): void {
    const width = this.view[1] - this.view[0];
    const [first, last] = this.whole;
    const start = clamp(this.view[0] + fraction * width, first, last - width);
    this.look(start, start + width);
  }

  private look(first: number, last: number): void {
    const [start, stop] = this.whole;
    const least = (8 * (stop - start)) / this.wavelength.length;
    if (last - first < least) return;
    this.view = [Math.max(first, start), Math.min(last, stop)];
    this.render();
  }

  private onKey(event: KeyboardEvent): void {
    const actions: Record<string, () => void> = {
      ArrowLeft: () => this.pan(-0.2),
      ArrowRight: () => this.pan(0.2),
      "+": () => this.zoom(0.6),
      "=": () => this.zoom(0.6),
      "-": () => this.zoom(1 / 0.6),
      Home: () => this.zoomAll(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  private wavelengthAt(event: PointerEvent): number {
    const box = this.svg.getBoundingClientRect();
    const fraction = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
    return this.view[0] + clamp(fraction, 0, 1) * (this.view[1] - this.view[0]);
  }

  private onDown(event: PointerEvent): void {
    if (event.pointerType === "touch") return; // a finger scrolls and reads off
    this.from = this.wavelengthAt(event);
    this.svg.setPointerCapture(event.pointerId);
  }

  private onUp(event: PointerEvent): void {
    const [from, to] = [this.from, this.wavelengthAt(event)];
    this.from = null;
    this.svg.querySelector(".selection")?.remove();
    if (from !== null) this.look(Math.min(from, to), Math.max(from, to));
  }

  private onMove(event: PointerEvent): void {
    if (this.flux === null) return;
    this.clearCursor();
    const at = this.wavelengthAt(event);
    const { width, height } = this.size;
    if (this.from !== null) {
      const [a, b] = [this.scaleX(this.from), this.scaleX(at)].sort((p, q) => p - q);
      this.svg.append(
        draw("rect", {
          class: "selection",
          x: a,
          width: b - a,
          y: MARGIN.top,
          height: height - MARGIN.top - MARGIN.bottom,
        }),
      );
    }
    const pixel = this.nearestPixel(at);
    const x = this.scaleX(this.wavelength[pixel]);
    const text = `${this.wavelength[pixel].toFixed(2)} Å   ${numberText(this.flux[pixel], 4)}`;
    const anchor = x > width / 2 ? "end" : "start";
    const offset = anchor === "end" ? -8 : 8;
    this.svg.append(
      draw("line", { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom }),
      draw("text", { class: "readout", x: x + offset, y: height - MARGIN.bottom - 8, "text-anchor": anchor }, text),
    );
  }

  private clearCursor(): void {
    this.svg.querySelectorAll(".cursor, .readout, .selection").forEach((element) => element.remove());
  }

  private nearestPixel(at: number): number {
    const right = clamp(searchSorted(this.wavelength, at), 1, this.wavelength.length - 1);
    return at - this.wavelength[right - 1] < this.wavelength[right] - at ? right - 1 : right;
  }

  private get size(): { width: number; height: number } {
    return { width: this.host.clientWidth, height: this.host.clientHeight };
  }

  private render(): void {
    const { width, height } = this.size;
    if (width === 0) return;
    const first = Math.max(searchSorted(this.wavelength, this.view[0]) - 1, 0);
    const last = Math.min(searchSorted(this.wavelength, this.view[1]) + 1, this.wavelength.length - 1);
    const [low, high] = this.fluxRange(first, last);
    const x = linear(this.view, [MARGIN.left, width - MARGIN.right]);
    const y = linear([low, high], [height - MARGIN.bottom, MARGIN.top]);
    this.scaleX = x;
    const clip = draw("clipPath", { id: "inside" });
    const frame = {
      x: MARGIN.left,
      y: MARGIN.top,
      width: width - MARGIN.left - MARGIN.right,
      height: height - MARGIN.top - MARGIN.bottom,
    };
    clip.append(draw("rect", frame));
    const inside = draw("g", { "clip-path": "url(#inside)" });
    if (this.flux !== null) {
      inside.append(...this.missing(first, last, x, frame));
      inside.append(this.line("flux", this.flux, first, last, x, y));
      if (this.showKnown && this.known !== null) inside.append(this.line("known", this.known, first, last, x, y));
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(
      clip,
      ...this.axes(x, y, [low, high], width, height),
      inside,
      draw("rect", { class: "axis", ...frame }),
    );
  }

  /** Return the range of flux to show: all of it but pixels far outside, such as cosmic rays. */
  private fluxRange(first: number, last: number): Range {
    const shown = this.flux === null ? [] : Array.from(this.flux.subarray(first, last + 1));
    const [least, lower, middle, upper, most] = [0, 0.01, 0.5, 0.99, 1].map((fraction) => nearestRank(shown, fraction));
    const low = Math.max(least, lower - 4 * (middle - lower));
    const high = Math.min(most, upper + 4 * (upper - middle));
    if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1.2];
    const room = 0.06 * (high - low) || 0.1;
    return [low - room, high + room];
  }

  /** Return a path; where many pixels share a column of the screen, their extremes are drawn. */
  private line(
    kind: string,
    values: ArrayLike<number>,
    first: number,
    last: number,
    x: (w: number) => number,
    y: (f: number) => number,
  ): SVGElement {
    const step = Math.max(1, Math.floor((last - first) / (2 * Math.max(this.size.width, 1))));
    let path = "";
    let pen = "M";
    const to = (i: number) => {
      path += `${pen}${x(this.wavelength[i]).toFixed(1)} ${y(values[i]).toFixed(1)}`;
      pen = "L";
    };
    for (let start = first; start <= last; start += step) {
      let [least, most] = [start, start];
      for (let i = start; i < Math.min(start + step, last + 1); i++) {
        if (values[i] < values[least]) least = i;
        if (values[i] > values[most]) most = i;
      }
      if (!Number.isFinite(values[least])) pen = "M";
      else for (const i of least === most ? [least] : [Math.min(least, most), Math.max(least, most)]) to(i);
    }
    return draw("path", { class: kind, d: path || "M0 0" });
  }

  /** Return grey areas where no flux is known. */
  private missing(
    first: number,
    last: number,
    x: (w: number) => number,
    frame: { y: number; height: number },
  ): SVGElement[] {
    const areas: SVGElement[] = [];
    for (let start = first; start <= last; start++) {
      let stop = start;
      while (stop <= last && !Number.isFinite(this.flux?.[stop])) stop++;
      if (stop === start) continue;
      const from = x(this.wavelength[Math.max(start - 1, 0)]);
      const to = x(this.wavelength[Math.min(stop, this.wavelength.length - 1)]);
      areas.push(
        draw("rect", { class: "missing", x: from, width: Math.max(to - from, 1), y: frame.y, height: frame.height }),
      );
      start = stop;
    }
    return areas;
  }

  private axes(
    x: (w: number) => number,
    y: (f: number) => number,
    flux: Range,
    width: number,
    height: number,
  ): SVGElement[] {
    const bottom = height - MARGIN.bottom;
    const parts: SVGElement[] = [];
    for (const { at, text } of ticks(this.view, Math.max(2, Math.floor(width / 110))))
      parts.push(
        draw("line", { class: "grid", x1: x(at), x2: x(at), y1: MARGIN.top, y2: bottom }),
        draw("text", { x: x(at), y: bottom + 15, "text-anchor": "middle" }, text),
      );
    for (const { at, text } of ticks(flux, Math.max(2, Math.floor(height / 60))))
      parts.push(
        draw("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(at), y2: y(at) }),
        draw("text", { x: MARGIN.left - 6, y: y(at) + 4, "text-anchor": "end" }, text),
      );
    parts.push(
      draw(
        "text",
        { class: "title", x: (MARGIN.left + width - MARGIN.right) / 2, y: height - 4, "text-anchor": "middle" },
        this.axisTitle,
      ),
      draw(
        "text",
        {
          class: "title",
          x: 12,
          y: (MARGIN.top + bottom) / 2,
          "text-anchor": "middle",
          transform: `rotate(-90 12 ${(MARGIN.top + bottom) / 2})`,
        },
        "flux",
      ),
    );
    return parts;
  }
}

function linear([a, b]: Range, [p, q]: Range): (value: number) => number {
  return (value) => p + ((value - a) / (b - a)) * (q - p);
}

/** Return round numbers inside a range, about `n` of them. */
function ticks([low, high]: Range, n: number): { at: number; text: string }[] {
  const rough = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((multiple) => multiple * power >= rough) ?? 10);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.max(Math.floor(high / step) - first + 1, 0) }, (_, i) => {
    const at = (first + i) * step;
    return { at, text: decimals > 4 || Math.abs(at) >= 1e6 ? general(at, 3) : numberText(at, decimals) };
  });
}
