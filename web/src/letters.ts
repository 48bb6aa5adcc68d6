/** Bytes as text that scripts hold as it is; the counterpart of `anna_onnx.page.in_letters`. */

const BASE = 91;

/** What a printable letter stands for: all but the quotation mark, less-than and the backslash. */
const VALUES = new Uint8Array(127);
Array.from({ length: 94 }, (_, i) => 33 + i)
  .filter((code) => !'"<\\'.includes(String.fromCharCode(code)))
  .forEach((code, value) => (VALUES[code] = value));

/**
 * Return the bytes that text stands for: 13 bits in two letters.
 *
 * @param text Begins with a letter that tells how many bytes at the end only fill up a group of 13.
 */
export function fromLetters(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(((text.length - 1) / 16) * 13);
  let [bits, count, at] = [0, 0, 0];
  for (let i = 1; i < text.length; i += 2) {
    bits = (bits << 13) | (VALUES[text.charCodeAt(i)] * BASE + VALUES[text.charCodeAt(i + 1)]);
    for (count += 13; count >= 8; count -= 8) bytes[at++] = bits >> (count - 8); // which keeps the last eight
  }
  return bytes.slice(0, bytes.length - VALUES[text.charCodeAt(0)]);
}
