/** The sortable table of results. */

import { FLAG, flagNames, MEANING, type FlagName } from "../flags.ts";
import type { Row } from "../inference.ts";
import type { Label } from "../model.ts";
import { median } from "../numeric.ts";
import { make } from "./dom.ts";
import { columnDecimals, decimalsFor, errorText, numberText, symbol, unitText } from "./words.ts";

/** Rows put on the page at first, and with every press of the button. */
const PAGE = 500;

interface SortKey {
  readonly title: string;
  readonly unit: string;
  readonly left: boolean;
  readonly of: (row: Row) => number | string;
}

/** Return a chip that names a flag; its meaning is its tool tip. */
export function chip(name: FlagName): HTMLElement {
  const unusable = (FLAG.unreadable | FLAG.no_coverage) & FLAG[name];
  return make("span", { class: unusable ? "chip bad" : "chip", title: MEANING[name] }, name.replaceAll("_", " "));
}

/** Return what a row is called: its id or file, and where it was found. */
export function rowName({ id, source }: Row): { name: string; place: string } {
  const row = source.row === null ? "" : `row ${source.row}`;
  if (!id) return { name: source.file, place: row };
  return { name: id, place: row ? `${row}, ${source.file}` : source.file };
}

export class ResultTable {
  /** Rows in the order of the table. */
  private sorted: Row[] = [];
  private rows: readonly Row[] = [];
  private picked: Row | null = null;
  private shown = PAGE;
  private sortedBy = -1;
  private ascending = true;
  private readonly keys: SortKey[];

  /**
   * @param more The button that brings the next rows.
   * @param onPick Told which row was chosen.
   */
  constructor(
    private readonly table: HTMLTableElement,
    private readonly more: HTMLButtonElement,
    private readonly labels: readonly Label[],
    private readonly onPick: (row: Row) => void,
  ) {
    const ofLabel = (label: Label, i: number): SortKey => ({
      title: symbol(label.name),
      unit: unitText(label.unit),
      left: false,
      of: (row) => row.values[i],
    });
    this.keys = [
      { title: "Spectrum", unit: "", left: true, of: (row) => `${rowName(row).name} ${row.source.file}` },
      ...labels.map(ofLabel),
      { title: "S/N", unit: "per pixel", left: false, of: (row) => row.snr },
      { title: "Coverage", unit: "", left: false, of: (row) => row.coverage },
      { title: "Flags", unit: "", left: true, of: (row) => row.flags },
    ];
    more.addEventListener("click", () => {
      this.shown += PAGE;
      this.render();
    });
    table.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** Show rows; they stand in the order given until a column is chosen to sort by. */
  show(rows: readonly Row[]): void {
    this.rows = rows;
    if (this.picked === null || !rows.includes(this.picked)) this.picked = rows[0] ?? null;
    this.sort();
    this.render();
    if (this.picked !== null) this.onPick(this.picked);
  }

  private sortBy(column: number): void {
    this.ascending = this.sortedBy === column ? !this.ascending : true;
    this.sortedBy = column;
    this.sort();
    this.render();
    this.table.querySelectorAll<HTMLButtonElement>("thead button")[column].focus();
  }

  private sort(): void {
    const key = this.keys[this.sortedBy]?.of;
    this.sorted = [...this.rows];
    if (!key) return;
    const sign = this.ascending ? 1 : -1;
    // What is not known comes last, either way.
    this.sorted.sort((a, b) => {
      const [p, q] = [key(a), key(b)];
      if (typeof p === "string" || typeof q === "string")
        return sign * String(p).localeCompare(String(q), undefined, { numeric: true });
      return Number(Number.isNaN(p)) - Number(Number.isNaN(q)) || sign * (p - q);
    });
  }

  private render(): void {
    const decimals = this.labels.map((_, i) => columnDecimals(this.rows.map((row) => row.errors[i])));
    const body = make("tbody", {}, ...this.sorted.slice(0, this.shown).map((row) => this.line(row, decimals)));
    this.table.replaceChildren(this.head(), body, ...this.foot(decimals));
    // One stop of the tabulator: where the arrow keys go on from.
    const stop = this.table.querySelector("tr.picked .pick") ?? this.table.querySelector(".pick");
    stop?.setAttribute("tabindex", "0");
    const hidden = this.sorted.length - this.shown;
    this.more.hidden = hidden <= 0;
    this.more.textContent = `Show ${Math.min(hidden, PAGE)} more of ${hidden}`;
  }

  private head(): HTMLElement {
    const cells = this.keys.map(({ title, unit, left }, column) => {
      const isSorted = column === this.sortedBy;
      const arrow = isSorted ? (this.ascending ? " ▲" : " ▼") : "";
      const button = make("button", { type: "button", title: `Sort by ${title}` }, title);
      button.append(
        make("span", { class: "arrow", "aria-hidden": "true" }, arrow),
        make("span", { class: "unit" }, unit),
      );
      button.addEventListener("click", () => this.sortBy(column));
      const order = isSorted ? (this.ascending ? "ascending" : "descending") : "none";
      return make("th", { scope: "col", "aria-sort": order, class: left ? "left" : "" }, button);
    });
    return make("thead", {}, make("tr", {}, ...cells));
  }

  private line(row: Row, decimals: readonly number[]): HTMLElement {
    const { name, place } = rowName(row);
    const isPicked = row === this.picked;
    const pick = make(
      "button",
      {
        type: "button",
        class: "pick",
        "aria-pressed": String(isPicked),
        title: `${name} ${place}`,
        tabindex: "-1",
      },
      name,
    );
    pick.append(make("small", {}, place));
    const line = make(
      "tr",
      { class: isPicked ? "picked" : "" },
      make("th", { scope: "row" }, pick),
      ...this.labels.map((_, i) => measured(row.values[i], row.errors[i], decimals[i])),
      make("td", {}, numberText(row.snr, 0)),
      make("td", {}, `${numberText(100 * row.coverage, row.coverage < 1 ? 1 : 0)}%`),
      flagCell(row.flags),
    );
    line.addEventListener("click", () => this.pick(row, line));
    return line;
  }

  private pick(row: Row, line: HTMLElement): void {
    this.table.querySelector("tr.picked")?.classList.remove("picked");
    const before = this.table.querySelector('.pick[tabindex="0"]');
    before?.setAttribute("aria-pressed", "false");
    before?.setAttribute("tabindex", "-1");
    line.classList.add("picked");
    const button = line.querySelector(".pick");
    button?.setAttribute("aria-pressed", "true");
    button?.setAttribute("tabindex", "0");
    this.picked = row;
    this.onPick(row);
  }

  /** Go to the next or previous spectrum with the arrow keys. */
  private onKey(event: KeyboardEvent): void {
    const line = (event.target as HTMLElement).closest("tbody tr");
    const next =
      event.key === "ArrowDown"
        ? line?.nextElementSibling
        : event.key === "ArrowUp"
          ? line?.previousElementSibling
          : null;
    const button = next?.querySelector<HTMLButtonElement>(".pick");
    if (!button) return;
    event.preventDefault();
    button.focus();
    button.click();
  }

  /** Return a line with the median and scatter of the spectra without flags, when there are some. */
  private foot(decimals: readonly number[]): HTMLElement[] {
    const good = this.rows.filter((row) => row.flags === 0);
    if (good.length < 3) return [];
    const cells = this.labels.map((_, i) => {
      const values = good.map((row) => row.values[i]);
      const middle = median(values);
      return measured(middle, 1.4826 * median(values.map((value) => Math.abs(value - middle))), decimals[i]);
    });
    const title = make(
      "th",
      { scope: "row" },
      "Median, scatter",
      make("small", { class: "muted" }, make("br"), `${good.length} without flags`),
    );
    const rest = [make("td", {}, numberText(median(good.map((row) => row.snr)), 0)), make("td"), make("td")];
    return [make("tfoot", {}, make("tr", {}, title, ...cells, ...rest))];
  }
}

/** Return a cell with the first flag and how many more there are; all of them are read out, and stand in the detail. */
function flagCell(bits: number): HTMLElement {
  const [first, ...others] = flagNames(bits);
  if (first === undefined) return make("td");
  const cell = make("td", { class: "left flags" }, chip(first));
  if (others.length) {
    const names = others.map((name) => name.replaceAll("_", " ")).join(", ");
    cell.append(make("span", { class: "chip", title: names, "aria-hidden": "true" }, `+${others.length}`));
    cell.append(make("span", { class: "quiet" }, names));
  }
  return cell;
}

/** Return a cell with a value and its error. */
function measured(value: number, error: number, decimals: number): HTMLElement {
  if (!Number.isFinite(value)) return make("td", {}, "–");
  // An error much smaller than its neighbours' keeps a digit.
  const places = Math.max(decimals, error > 0 ? decimalsFor(error) - 1 : 0);
  return make(
    "td",
    {},
    make("span", { class: "value" }, numberText(value, places)),
    make("span", { class: "error" }, errorText(error, places)),
  );
}
