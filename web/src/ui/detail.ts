/** What is said of one spectrum, and of the model. */

import { flagNames, MEANING } from "../flags.ts";
import { general, percent } from "../format.ts";
import type { Row } from "../inference.ts";
import { gridText, type Model } from "../model.ts";
import { make } from "./dom.ts";
import { chip } from "./table.ts";
import { decimalsFor, errorText, numberText, roundedText, symbol, unitText } from "./words.ts";

/** Return the labels, flags and notes of a spectrum. */
export function spectrumDetail(row: Row, model: Model): HTMLElement[] {
  const parts: HTMLElement[] = [];
  const known = model.labels.flatMap((label, i) => (Number.isFinite(row.values[i]) ? [{ label, i }] : []));
  if (known.length) {
    const entries = known.map(({ label, i }) => {
      const decimals = decimalsFor(row.errors[i]);
      const error = make("small", {}, ` ${errorText(row.errors[i], decimals)} ${unitText(label.unit)}`);
      const value = make("dd", {}, numberText(row.values[i], decimals), error);
      return make("div", {}, make("dt", {}, symbol(label.name)), value);
    });
    entries.push(make("div", {}, make("dt", {}, "S/N per pixel"), make("dd", {}, numberText(row.snr, 0))));
    parts.push(make("dl", { class: "values" }, ...entries));
  }
  const warnings = flagNames(row.flags).map((name) => make("li", {}, chip(name), ` ${MEANING[name]}`));
  if (warnings.length) parts.push(make("ul", { class: "warnings" }, ...warnings));
  if (row.message) parts.push(make("p", { class: "message" }, row.message));
  return parts;
}

/** Return what the model does. */
export function tagline(model: Model): string {
  const names = model.labels.map((label) => symbol(label.name));
  const list = names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0];
  const grid = gridText(model.grid).replace("-", "–");
  return `Infers ${list} from stellar spectra over ${grid}. Nothing is sent anywhere: the network runs in this page.`;
}

/** Return the model card. */
export function aboutModel(model: Model, selfTest: string): HTMLElement[] {
  const { preparation, about, grid } = model;
  const range = (limits: readonly [number, number] | null, unit = "") =>
    limits === null ? "not stated" : `${general(limits[0], 4)} to ${general(limits[1], 4)}${unit}`.replaceAll("-", "−");
  const expects: [string, string][] = [
    [
      "Wavelengths",
      `${gridText(grid)}, ${grid.wavelength.length} pixels; others are converted, unknown media are taken as ${grid.medium}`,
    ],
    ["S/N per pixel", range(preparation.snr_range)],
    ["Radial velocity", range(preparation.velocity_range, " km/s")],
    ["Resolving power", preparation.resolution === null ? "not stated" : general(preparation.resolution, 5)],
    ["Coverage", `at least ${percent(preparation.min_coverage)} of the range`],
    ["Continuum", preparation.normalize ? "fitted where a spectrum is not normalised" : "normalised to 1"],
  ];
  const made: [string, string][] = [
    ["Made", [about.date.slice(0, 10), about.architecture].filter(Boolean).join(", ") || "not stated"],
    ...Object.entries(about.data).map(([name, { file, sha256 }]): [string, string] => [
      name.replaceAll("_", " "),
      `${file} (${sha256.slice(0, 12)})`,
    ]),
    [
      "Written with",
      Object.entries(about.versions)
        .map((pair) => pair.join(" "))
        .join(", ") || "not stated",
    ],
    ["Network sha256", model.sha256],
    ["Self-test", selfTest],
  ];
  return [
    labelTable(model),
    ...(Object.keys(about.metrics).length
      ? [make("p", { class: "muted" }, `Measured on the ${about.tested_on} with the augmentation of the training.`)]
      : []),
    make("h3", {}, "What it expects"),
    factList(expects),
    ...notesOf(about.notes),
    make("h3", {}, "How it was made"),
    factList(made),
    make("h3", {}, "The same on the command line"),
    make("p", {}, make("code", {}, `anna-lite infer ${model.name}.onnx spectra/*.fits -o results.csv`)),
  ];
}

/** Return Markdown as text: headings stand out, tables, lists and code keep their lines. */
function notesOf(markdown: string): HTMLElement[] {
  const blocks = markdown.split(/\r?\n(?:[ \t]*\r?\n)+/).filter((block) => block.trim());
  return blocks.flatMap((block) => {
    const [, heading, rest] = /^(?:#+ +(.*)\s*)?([^]*)$/.exec(block)!;
    const text = make("p", { class: /^[|*+>`\s\d-]/.test(rest) ? "notes lines" : "notes" }, rest);
    return [...(heading ? [make("h3", {}, heading)] : []), ...(rest ? [text] : [])];
  });
}

function labelTable(model: Model): HTMLElement {
  const titles = ["Label", "Unit", "Trained from", "to", "Bias", "Robust scatter", "rms", "Inside ± error"];
  const lines = model.labels.map((label) => {
    const metrics = model.about.metrics[label.name];
    const numbers = metrics
      ? [...[metrics.bias, metrics.robust_scatter, metrics.rms].map(roundedText), percent(metrics.coverage_68, 1)]
      : ["–", "–", "–", "–"];
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, symbol(label.name)),
      make("td", { class: "left" }, unitText(label.unit)),
      ...[numberText(label.low, decimalsOf(label.low)), numberText(label.high, decimalsOf(label.high)), ...numbers].map(
        (text) => make("td", {}, text),
      ),
    );
  });
  const head = make(
    "tr",
    {},
    ...titles.map((title, i) => make("th", { scope: "col", class: i < 2 ? "left" : "" }, title)),
  );
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines));
  return make("div", { class: "scroll", role: "region", "aria-label": "Accuracy of the labels", tabindex: "0" }, table);
}

function decimalsOf(value: number): number {
  return Number.isInteger(value) ? 0 : Math.min((String(value).split(".")[1] ?? "").length, 3);
}

function factList(facts: readonly (readonly [string, string])[]): HTMLElement {
  const entries = facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  return make("dl", { class: "facts" }, ...entries);
}
