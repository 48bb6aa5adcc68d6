// Read files as the page does and print what came of it as JSON; tests/web compares that with Python's readers.

import { readFileSync } from "node:fs";
import { basename } from "node:path";

import { ReadError } from "../src/errors.ts";
import { inMedium } from "../src/readers/judged-medium.ts";
import { readSpectra } from "../src/readers/registry.ts";
import { isSpectrum, type Spectrum } from "../src/spectrum.ts";

/** Everything about a spectrum, with sums that change when any pixel does. */
function summary(spectrum: Spectrum): Record<string, unknown> {
  const { wavelength, flux, sigma, bad, source, ...known } = spectrum;
  const good = Array.from(flux.keys()).filter((i) => !bad[i]);
  const weighted = (values: Float64Array) => good.reduce((total, i) => total + values[i] * (1 + (i % 7)), 0);
  return {
    ...known,
    row: source.row,
    hdu: source.hdu,
    n: wavelength.length,
    first: wavelength[0],
    middle: wavelength[wavelength.length >> 1],
    last: wavelength[wavelength.length - 1],
    n_bad: wavelength.length - good.length,
    flux: weighted(flux),
    sigma: sigma && weighted(sigma),
  };
}

const found: Record<string, unknown> = {};
for (const file of process.argv.slice(2)) {
  try {
    const readings = await readSpectra(basename(file), new Uint8Array(readFileSync(file)));
    found[file] = readings.map((one) => (isSpectrum(one) ? summary(inMedium(one, null)) : one.problem));
  } catch (error) {
    if (!(error instanceof ReadError)) throw error;
    found[file] = error.message;
  }
}
console.log(JSON.stringify(found));
