/** Something the user can mend: the message says which file, what was found, what was needed. */
export class ReadError extends Error {}

/** An option that makes no sense; the message says what was given and what was needed. */
export class OptionError extends Error {}

/** A file holds flux, but nothing in it says at which wavelengths. */
export class NoWavelengthError extends ReadError {}
