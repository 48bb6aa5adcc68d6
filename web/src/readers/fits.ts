/**
 * FITS headers and images, as far as spectra in images need them; the counterpart of `anna_onnx.readers.fits`.
 *
 * FITS Standard 4.0, https://fits.gsfc.nasa.gov/fits_standard.html
 */

import { ReadError } from "../errors.ts";
import { parseNumber } from "./number.ts";

const BLOCK = 2880;
const CARD = 80;
const MAX_HEADER = 16_000_000;
const MAX_HDUS = 10_000;
const MAX_PIXELS = 25_000_000;

const QUOTED = /^'((?:[^']|'')*)/;

type Value = boolean | number | string | null;

/** The cards of a header; a value is parsed when it is asked for. */
export class Header {
  private readonly at = new Map<string, number>();
  private readonly hierarch = new Map<string, number>();

  /** @param text Cards of 80 characters. */
  constructor(private readonly text: string) {
    for (let i = 0; i + CARD <= text.length; i += CARD) {
      const key = text.slice(i, i + 8).trimEnd();
      // The first of several equal keywords counts.
      if (!this.at.has(key)) this.at.set(key, i);
      const [long, equals] = text.slice(i + 9, i + CARD).split("=", 2);
      if (key === "HIERARCH" && equals !== undefined) this.hierarch.set(long.trim(), i);
    }
  }

  has(key: string): boolean {
    return this.find(key) !== undefined;
  }

  /** Return whether a long keyword contains a phrase. */
  mentions(phrase: string): boolean {
    return Array.from(this.hierarch.keys()).some((key) => key.includes(phrase));
  }

  /** Return the value of a keyword, null when it is absent or has none. */
  get(key: string): Value {
    const field = this.field(key);
    if (field.startsWith("'")) return this.raw(key).trimEnd();
    return parseValue(field.split("/", 1)[0].trim());
  }

  /** Return a finite number, also one written as text, or null. */
  number(key: string): number | null {
    const value = this.get(key);
    if (value === null || typeof value === "boolean" || value === "") return null;
    const number = typeof value === "number" ? value : parseNumber(value.trim());
    return Number.isFinite(number) ? number : null;
  }

  integer(key: string): number | null {
    const number = this.number(key);
    return Number.isInteger(number) ? number : null;
  }

  /** Return a string without surrounding blanks, empty when there is none. */
  string(key: string): string {
    const value = this.get(key);
    if (value === null) return "";
    if (typeof value === "string") return value.trim();
    if (typeof value === "boolean") return value ? "True" : "False";
    // A whole number that is written with a point stays one, as in Python.
    return Number.isInteger(value) && /[.ED]/i.test(this.field(key).split("/", 1)[0])
      ? value.toFixed(1)
      : String(value);
  }

  /** Return a string with its trailing blanks, which count in IRAF's WAT cards, and its CONTINUE cards. */
  raw(key: string): string {
    let at = this.find(key);
    const field = this.field(key);
    if (at === undefined || !field.startsWith("'")) return "";
    let value = unquote(field);
    while (value.trimEnd().endsWith("&") && this.text.startsWith("CONTINUE", at + CARD)) {
      at += CARD;
      value = value.trimEnd().slice(0, -1) + unquote(this.text.slice(at + 8, at + CARD).trim());
    }
    return value;
  }

  /** Return the comment of a card, empty when there is none. */
  remark(key: string): string {
    const field = this.field(key).replace(QUOTED, "");
    return field.includes("/") ? field.slice(field.indexOf("/") + 1).trim() : "";
  }

  /** Return the COMMENT and HISTORY lines. */
  prose(): string[] {
    const cards = this.text.match(/.{80}/gs) ?? [];
    return cards.filter((card) => /^(COMMENT|HISTORY) /.test(card)).map((card) => card.slice(8).trim());
  }

  /** Return what stands after the equals sign. */
  private field(key: string): string {
    const at = this.find(key);
    if (at === undefined) return "";
    const card = this.text.slice(at, at + CARD);
    if (card[8] === "=") return card.slice(9).trim();
    return card.startsWith("HIERARCH ") ? card.slice(card.indexOf("=") + 1).trim() : "";
  }

  private find(key: string): number | undefined {
    const isShort = key.length <= 8 && !key.includes(" ");
    return this.at.get(key) ?? (isShort ? undefined : this.hierarch.get(key));
  }
}

/** Return what stands between quotes; a doubled quote is a quote. */
function unquote(field: string): string {
  return (QUOTED.exec(field)?.[1] ?? field.slice(1)).replaceAll("''", "'");
}

function parseValue(token: string): Value {
  if (token === "T" || token === "F") return token === "T";
  if (token === "") return null;
  return parseNumber(token.replace(/[Dd]/g, "E")) ?? token;
}

/** One header and data unit. */
export interface Hdu {
  readonly index: number;
  readonly header: Header;
  /** Of the image, slowest axis first; empty for what is no image. */
  readonly shape: readonly number[];
  readonly isTable: boolean;
  /** Return the pixels, scaled, blanks as NaN. */
  image(): Float64Array;
}

/** Return the header and data units of a FITS file. */
export function readHdus(data: DataView, path: string): Hdu[] {
  const hdus: Hdu[] = [];
  let position = 0;
  while (position < data.byteLength && hdus.length < MAX_HDUS) {
    if (hdus.length && !startsWith(data, position, "XTENSION")) break; // something after the end that is no HDU
    const index = hdus.length;
    const where = `${path}[${index}]`;
    const { header, start } = readHeader(data, position, where);
    const shape = imageShape(header, where);
    const bits = header.integer("BITPIX") ?? 0;
    const heap = index ? (header.integer("PCOUNT") ?? 0) : 0;
    const isPlain = (header.integer("GCOUNT") ?? 1) === 1 && header.get("GROUPS") !== true;
    if (![8, 16, 32, 64, -32, -64].includes(bits) || heap < 0 || !isPlain)
      throw new ReadError(`${where}: not readable as FITS (BITPIX ${bits}, PCOUNT ${heap}, or random groups)`);
    const size = shape.length ? product(shape) : 0;
    const bytes = (Math.abs(bits) / 8) * (heap + size);
    if (start + bytes > data.byteLength)
      throw new ReadError(`${where}: cut short, ${Math.max(0, data.byteLength - start)} bytes of ${bytes}`);
    const isImage = index === 0 || ["IMAGE", "IUEIMAGE"].includes(header.string("XTENSION"));
    hdus.push({
      index,
      header,
      shape: isImage ? shape : [],
      isTable: !isImage,
      image: () => readPixels(data, start, header, size, where),
    });
    position = start + Math.ceil(bytes / BLOCK) * BLOCK;
  }
  return hdus;
}

/** Return one line on what a file holds. */
export function describeHdus(hdus: readonly Hdu[]): string {
  const lines = hdus.slice(0, 8).map(({ index, header, shape, isTable }) => {
    const name = header.string("EXTNAME");
    const what = isTable ? "a table" : shape.length ? `an image of ${shape.join(" x ")}` : "no data";
    return `HDU ${index}${name ? ` ${name}` : ""}: ${what}`;
  });
  return lines.join("; ") + (hdus.length > 8 ? "; ..." : "");
}

export function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

function readHeader(data: DataView, from: number, where: string): { header: Header; start: number } {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const limit = Math.min(data.byteLength, from + MAX_HEADER);
  for (let at = from; at + CARD <= limit; at += CARD)
    if (startsWith(data, at, "END     ")) {
      const text = latin1(bytes.subarray(from, at));
      return { header: new Header(text), start: from + Math.ceil((at + CARD - from) / BLOCK) * BLOCK };
    }
  throw new ReadError(`${where}: not readable as FITS (a header without END)`);
}

export function latin1(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return text;
}

export function startsWith(data: DataView, at: number, text: string): boolean {
  if (at + text.length > data.byteLength) return false;
  for (let i = 0; i < text.length; i++) if (data.getUint8(at + i) !== text.charCodeAt(i)) return false;
  return true;
}

function imageShape(header: Header, where: string): number[] {
  const naxis = header.integer("NAXIS");
  const axes = Array.from({ length: Math.max(0, Math.min(naxis ?? -1, 999)) }, (_, i) =>
    header.integer(`NAXIS${i + 1}`),
  );
  if (naxis === null || naxis < 0 || axes.some((n) => n === null || n < 0))
    throw new ReadError(`${where}: not readable as FITS (NAXIS ${naxis}: ${axes.join(" x ")})`);
  return (axes as number[]).reverse();
}

function readPixels(data: DataView, start: number, header: Header, n: number, where: string): Float64Array {
  const bits = header.integer("BITPIX") ?? 0;
  const size = Math.abs(bits) / 8;
  if (n > MAX_PIXELS) throw new ReadError(`${where}: ${n} pixels, more than ${MAX_PIXELS}`);
  const get: Record<number, (at: number) => number> = {
    8: (at) => data.getUint8(at),
    16: (at) => data.getInt16(at),
    32: (at) => data.getInt32(at),
    64: (at) => Number(data.getBigInt64(at)),
    [-32]: (at) => data.getFloat32(at),
    [-64]: (at) => data.getFloat64(at),
  };
  const read = get[bits];
  const scale = header.number("BSCALE") ?? 1;
  const zero = header.number("BZERO") ?? 0;
  const blank = bits > 0 ? header.integer("BLANK") : null;
  const pixels = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const value = read(start + i * size);
    pixels[i] = value === blank ? NaN : value * scale + zero;
  }
  return pixels;
}
