/** The network in the browser: onnxruntime's WebAssembly, one thread. */

import * as ort from "onnxruntime-web/wasm";

import { type Fit, fitOf, N_COLUMN } from "./fit.ts";
import { fromLetters } from "./letters.ts";
import { gunzip, type Model, type PageFiles } from "./model.ts";

/** Spectra in one call of the network, between which the page stays alive. */
export const BATCH = 16;

export interface Answers {
  /** Shape (n, label), one row after the other, in the labels' units. */
  readonly labels: Float32Array;
  readonly sigma: Float32Array;
  /** Of each spectrum; none where the network does not say. */
  readonly fits: readonly Fit[];
}

export class Network {
  private constructor(
    private readonly session: ort.InferenceSession,
    private readonly nPixel: number,
  ) {}

  /** Unpack and start the network that the page carries. */
  static async start(files: PageFiles, model: Model): Promise<Network> {
    const [engine, network] = await Promise.all([unpack(files.engine), unpack(files.network)]);
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = engine.buffer;
    ort.env.logLevel = "error";
    const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
    return new Network(session, model.grid.wavelength.length);
  }

  /**
   * Infer labels and sigma, and how well spectra fit them.
   *
   * @param flux Continuum = 1, NaN where a pixel is not valid; shape (n, pixel), one row after the other.
   */
  async run(flux: Float32Array): Promise<Answers> {
    const input = new ort.Tensor("float32", flux, [flux.length / this.nPixel, this.nPixel]);
    const { labels, sigma, fit } = await this.session.run({ flux: input });
    const columns = (fit?.data ?? new Float32Array()) as Float32Array;
    const fits = Array.from({ length: columns.length / N_COLUMN }, (_, i) =>
      fitOf(columns.subarray(i * N_COLUMN, (i + 1) * N_COLUMN)),
    );
    return { labels: labels.data as Float32Array, sigma: sigma.data as Float32Array, fits };
  }
}

async function unpack(text: string): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await gunzip(fromLetters(text));
  if (bytes === null) throw new Error("the page is damaged");
  return bytes;
}
