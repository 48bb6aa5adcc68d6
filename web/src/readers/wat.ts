/** The world coordinate attributes that IRAF keeps in WAT cards; the counterpart of `anna_onnx.readers.wat`. */

import type { Header } from "./fits.ts";

/** Characters of one card; trailing blanks count, but many programs strip them. */
const CONTENT = 68;

/** Return the attributes of a WCS axis, counted from 1; 0 is the system. */
export function attributes(header: Header, axis: number): Map<string, string> {
  const pieces: string[] = [];
  for (;;) {
    const key = `WAT${axis}_${String(pieces.length + 1).padStart(3, "0")}`;
    if (!header.has(key)) break;
    pieces.push(header.raw(key));
  }
  const whole = pieces.map((piece, i) => (i < pieces.length - 1 ? piece.padEnd(CONTENT) : piece)).join("");
  const found = whole.matchAll(/(\w+)\s*=\s*("[^"]*"|\S+)/g);
  return new Map(Array.from(found, ([, name, value]) => [name.toLowerCase(), value.replace(/^"+|"+$/g, "")]));
}

/** Return what IRAF states of the dispersion axis; empty when it does not. */
export function unitAndLabel(header: Header): { unit: string; label: string } {
  const found = attributes(header, 1);
  return { unit: found.get("units") ?? "", label: found.get("label") ?? "" };
}

/** Return which band of an image is the flux, the first unless the BANDIDs say otherwise, and which its error. */
export function bandsOf(header: Header, nBand: number): { fluxBand: number; sigmaBand: number | null } {
  const names = Array.from({ length: nBand }, (_, band) => header.string(`BANDID${band + 1}`).toLowerCase());
  const find = (...words: string[]) => names.findIndex((name) => words.some((word) => name.startsWith(word)));
  const [flux, sigma] = [find("spectrum", "object"), find("sigma", "noise", "error")];
  return { fluxBand: Math.max(flux, 0), sigmaBand: nBand > 1 && sigma >= 0 ? sigma : null };
}
