/** Numbers in text, in the spellings that Python's `float` takes. */

const NUMBER = /^[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)(e[+-]?\d+(_\d+)*)?$/i;
const NOT_FINITE = /^([+-]?)(inf|infinity|nan)$/i;

export function isNumber(text: string): boolean {
  return NUMBER.test(text) || NOT_FINITE.test(text);
}

/** Return the number that a text spells, null when it spells none. */
export function parseNumber(text: string): number | null {
  if (NUMBER.test(text)) return Number(text.replaceAll("_", ""));
  const special = NOT_FINITE.exec(text);
  if (special === null) return null;
  if (special[2].toLowerCase() === "nan") return NaN;
  return special[1] === "-" ? -Infinity : Infinity;
}
