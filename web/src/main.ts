/** The page: files in, a plot, a table and a CSV file out. */

import { OptionError, ReadError } from "./errors.ts";
import { FLAG } from "./flags.ts";
import { infer, selfTest, type Row } from "./inference.ts";
import { readModel, type Model, type PageFiles } from "./model.ts";
import { Network } from "./network.ts";
import { nearestKnown } from "./novelty.ts";
import { FASTEST_STAR, type PrepareOptions } from "./preparation.ts";
import { inMedium } from "./readers/judged-medium.ts";
import { readSpectra } from "./readers/registry.ts";
import { toCsv } from "./results.ts";
import { isSpectrum, type Medium, type Reading } from "./spectrum.ts";
import { aboutModel, spectrumDetail, tagline } from "./ui/detail.ts";
import { find } from "./ui/dom.ts";
import { SpectrumPlot } from "./ui/plot.ts";
import { ResultTable, rowName } from "./ui/table.ts";
import { plural } from "./ui/words.ts";

declare global {
  var annaFiles: PageFiles;
}

interface Options extends PrepareOptions {
  /** Of the wavelengths, in place of what the file says. */
  readonly medium: Medium | null;
}

class Page {
  private readonly plot: SpectrumPlot;
  private readonly table: ResultTable;
  private readonly given: Reading[] = [];
  private rows: Row[] = [];
  /** What is to be done, one thing after the other. */
  private queue: Promise<void> = Promise.resolve();

  constructor(
    private readonly model: Model,
    private readonly network: Promise<Network>,
  ) {
    const { wavelength, medium } = model.grid;
    this.plot = new SpectrumPlot(find("plot"), wavelength, `wavelength in ${medium} / Å`);
    this.table = new ResultTable(find("table"), find("more"), model.labels, (row) => this.showSpectrum(row));
    find("tagline").textContent = tagline(model);
    find("show-known").parentElement!.hidden = model.novelty === null;
    this.listen();
    this.enqueue(() => this.start());
  }

  private async start(): Promise<void> {
    say("Starting the network …");
    const deviation = await selfTest(this.model, await this.network);
    const good = deviation === null || deviation <= 1e-4;
    const text =
      deviation === null
        ? "the model carries none"
        : `this browser gives the training machine's answers to ${deviation.toExponential(0)} of a label's range`;
    find("about-body").replaceChildren(...aboutModel(this.model, text));
    if (good) say("Ready.");
    else
      fail(
        `This browser computes differently from the training machine (by ${deviation.toExponential(0)} of a label's range).`,
      );
  }

  private listen(): void {
    const input = find<HTMLInputElement>("files");
    input.addEventListener("change", () => {
      this.add(Array.from(input.files ?? []));
      input.value = "";
    });
    const body = document.body;
    for (const kind of ["dragenter", "dragover"])
      body.addEventListener(kind, (event) => {
        event.preventDefault();
        body.classList.add("dragging");
      });
    body.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) body.classList.remove("dragging");
    });
    body.addEventListener("drop", (event) => {
      event.preventDefault();
      body.classList.remove("dragging");
      this.add(Array.from(event.dataTransfer?.files ?? []));
    });
    for (const id of ["medium", "rv", "normalize"]) find(id).addEventListener("change", () => this.again());
    find("clear").addEventListener("click", () => this.enqueue(() => this.clear()));
    find("download").addEventListener("click", () => this.download());
    find<HTMLInputElement>("show-known").addEventListener("change", (event) =>
      this.plot.setKnown((event.target as HTMLInputElement).checked),
    );
    find("zoom-in").addEventListener("click", () => this.plot.zoom(0.6));
    find("zoom-out").addEventListener("click", () => this.plot.zoom(1 / 0.6));
    find("zoom-all").addEventListener("click", () => this.plot.zoomAll());
  }

  /** Read and infer files, after what is being done. */
  private add(files: readonly File[]): void {
    if (!files.length) return;
    this.enqueue(async () => {
      const began = performance.now();
      const fresh: Reading[] = [];
      for (const [i, file] of files.entries()) {
        say(`Reading ${plural(files.length, "file")} …`, i / files.length);
        fresh.push(...(await read(file)));
      }
      this.given.push(...fresh);
      this.rows = [...this.rows, ...(await this.infer(fresh))];
      this.present(began);
    });
  }

  /** Infer everything anew, with other options. */
  private again(): void {
    if (!this.given.length) return;
    this.enqueue(async () => {
      const began = performance.now();
      this.rows = await this.infer(this.given);
      this.present(began);
    });
  }

  private async infer(readings: readonly Reading[]): Promise<Row[]> {
    const network = await this.network;
    const options = readOptions();
    const chosen = readings.map((one) => (isSpectrum(one) ? inMedium(one, options.medium) : one));
    const rows: Row[] = [];
    for await (const some of infer(this.model, network, chosen, options)) {
      rows.push(...some);
      say(`Inferring ${plural(chosen.length, "spectrum", "spectra")} …`, rows.length / chosen.length);
      await breathe();
    }
    return rows;
  }

  private present(began: number): void {
    find("results").hidden = false;
    document.body.classList.add("has-results");
    this.table.show(this.rows);
    const flagged = this.rows.filter((row) => row.flags !== 0).length;
    const unread = this.given.filter((one) => !isSpectrum(one)).length;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const parts = [plural(this.rows.length - unread, "spectrum", "spectra"), `${flagged - unread} with flags`];
    if (unread) parts.push(`${unread} could not be read`);
    say(`${parts.join(", ")}, in ${seconds} s.`);
  }

  private showSpectrum(row: Row): void {
    const { name, place } = rowName(row);
    find("caption").textContent = [name, place].filter(Boolean).join(" · ");
    const { novelty } = this.model;
    const isSeen = row.flux !== null && row.coverage > 0;
    const isComparable = isSeen && novelty !== null && !(row.flags & FLAG.not_normalized);
    this.plot.show(
      row.flux,
      isComparable ? nearestKnown(novelty, row.flux) : null,
      `Spectrum of ${name} on the wavelengths of the model`,
    );
    find<HTMLInputElement>("show-known").disabled = !isComparable;
    const why = isComparable ? "" : ": none, for the flux is not normalised";
    find("known-name").textContent = `nearest combination of training spectra${why}`;
    find("figure").hidden = !isSeen;
    find("detail").replaceChildren(...spectrumDetail(row, this.model));
  }

  private async clear(): Promise<void> {
    this.given.length = 0;
    this.empty();
    say("Ready.");
    find("files").focus();
  }

  /** Show no results. */
  private empty(): void {
    this.rows = [];
    find("results").hidden = true;
    document.body.classList.remove("has-results");
  }

  private download(): void {
    const csv = new Blob([toCsv(this.rows, this.model.labels)], { type: "text/csv;charset=utf-8" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(csv);
    link.download = `${this.model.name}-results.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  private enqueue(job: () => Promise<void>): void {
    this.queue = this.queue.then(job).catch((error: unknown) => {
      if (error instanceof OptionError) {
        this.empty(); // results of other options would be taken for those of these
        fail(`${error.message}. Nothing was inferred.`);
        return;
      }
      console.error(error);
      fail(`Something went wrong: ${error instanceof Error ? error.message : String(error)}`);
    });
  }
}

/** Read a file; one bad file never stops the others. */
async function read(file: File): Promise<Reading[]> {
  try {
    return await readSpectra(file.name, new Uint8Array(await file.arrayBuffer()));
  } catch (error) {
    const problem = error instanceof ReadError ? error.message : `${file.name}: cannot be read (${String(error)})`;
    return [{ source: { file: file.name, hdu: null, row: null }, problem }];
  }
}

/**
 * Return the options as they are on the page.
 *
 * @throws OptionError If the radial velocity is none of a star.
 */
function readOptions(): Options {
  const { valueAsNumber: rv, validity } = find<HTMLInputElement>("rv");
  if (validity.badInput) throw new OptionError("radial velocity: needed a number in km/s");
  if (Math.abs(rv) > FASTEST_STAR) throw new OptionError(`radial velocity ${rv} km/s, needed at most ${FASTEST_STAR}`);
  const medium = find<HTMLSelectElement>("medium").value as Medium | "";
  return {
    rv: Number.isNaN(rv) ? null : rv,
    normalize: find<HTMLInputElement>("normalize").checked,
    medium: medium || null,
  };
}

/** Say what is going on, and how much of it is done. */
function say(text: string, done?: number): void {
  const progress = find<HTMLProgressElement>("progress");
  progress.hidden = done === undefined;
  progress.value = done ?? 0;
  find("status").parentElement!.classList.remove("failed");
  if (find("status").textContent !== text) find("status").textContent = text;
}

function fail(text: string): void {
  say(text);
  find("status").parentElement!.classList.add("failed");
}

/** Let the browser draw. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

document.addEventListener("DOMContentLoaded", () => {
  const model = readModel(globalThis.annaFiles.model);
  new Page(model, Network.start(globalThis.annaFiles, model));
});
