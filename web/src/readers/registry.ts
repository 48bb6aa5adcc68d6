/** Which family reads a file: by its first bytes, then by what its headers hold. */

import { ReadError } from "../errors.ts";
import { gunzip } from "../model.ts";
import { isSpectrum, type Reading } from "../spectrum.ts";
import { describeHdus, latin1, readHdus, startsWith, type Hdu } from "./fits.ts";
import { readKeywordAxis } from "./keyword-axis.ts";
import { isMultispec, readMultispec } from "./multispec.ts";
import { readText } from "./text.ts";

const MAX_FILE = 256 << 20;
const MAX_TEXT = 32 << 20;
const ELSEWHERE =
  "this page reads FITS images with a wavelength axis in the header (CRVAL1) or IRAF multispec, and text; anna-lite infer reads more";

/**
 * Read all spectra of a file, in the medium that it states; `inMedium` is for those of which it does not.
 * Of several, those that cannot be read are `Unread`.
 *
 * @throws ReadError If it is something else; the message says what was found.
 */
export async function readSpectra(path: string, content: Uint8Array<ArrayBuffer>): Promise<Reading[]> {
  if (content.length > MAX_FILE) throw new ReadError(`${path}: more than ${MAX_FILE >> 20} MB; ${ELSEWHERE}`);
  const bytes = await unpacked(path, content);
  if (bytes.length === 0) throw new ReadError(`${path}: the file is empty`);
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isFits = startsWith(data, 0, "SIMPLE  =") || startsWith(data, 0, "XTENSION=");
  const readings = isFits ? readFits(path, data) : readText(path, decode(path, bytes));
  const [first] = readings;
  if (!isSpectrum(first) && !readings.some(isSpectrum)) throw new ReadError(first.problem);
  return readings;
}

async function unpacked(path: string, content: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  if (content[0] !== 0x1f || content[1] !== 0x8b) return content;
  let bytes: Uint8Array<ArrayBuffer> | null;
  try {
    bytes = await gunzip(content, MAX_FILE);
  } catch {
    throw new ReadError(`${path}: damaged gzip`);
  }
  if (bytes === null) throw new ReadError(`${path}: unpacks to more than ${MAX_FILE >> 20} MB`);
  return bytes;
}

function readFits(path: string, data: DataView): Reading[] {
  const hdus = readHdus(data, path);
  const multispec = hdus.find(isMultispec);
  if (multispec) return readMultispec(path, multispec, hdus[0].header);
  const [primary, ...extensions] = hdus;
  // Another image or a table may hold the wavelengths, the errors, or the spectrum itself.
  if (extensions.some((hdu) => hdu.isTable || hdu.shape.length) || !primary.shape.length || isOfPipeline(primary))
    throw new ReadError(`${path}: found ${describeHdus(hdus)}; ${ELSEWHERE}`);
  if (primary.shape.reduce((a, b) => a * b, 1) < 2)
    throw new ReadError(`${path}: found ${describeHdus(hdus)}, no spectrum`);
  return readKeywordAxis(path, primary);
}

/** Return whether an image of several lines is of a pipeline whose lines are not all spectra. */
function isOfPipeline({ header, shape }: Hdu): boolean {
  if (shape.length < 2) return false;
  const byName = ["TELESCOP", "ORIGIN"].some((key) => /SDSS|LAMOST/.test(header.string(key).toUpperCase()));
  const spextool = header.has("XUNITS") && header.has("YUNITS") && !header.has("CRVAL1");
  return byName || spextool || header.mentions("DRS CAL TH");
}

function decode(path: string, bytes: Uint8Array): string {
  const head = bytes.subarray(0, 65536);
  if (head.includes(0)) {
    const shown = latin1(bytes.subarray(0, 8)).replace(/[^ -~]/g, "?");
    throw new ReadError(`${path}: begins with '${shown}', neither FITS nor text; ${ELSEWHERE}`);
  }
  if (bytes.length > MAX_TEXT)
    throw new ReadError(`${path}: ${bytes.length >> 20} MB of text, more than ${MAX_TEXT >> 20} MB`);
  if (/<VOTABLE/i.test(latin1(head.subarray(0, 4096))) || latin1(head.subarray(0, 7)) === "# %ECSV")
    throw new ReadError(`${path}: a VOTable or ECSV table; ${ELSEWHERE}`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return latin1(bytes);
  }
}
