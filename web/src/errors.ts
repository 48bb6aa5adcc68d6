/** Something the user can mend: the message says which file, what was found, what was needed. */
export class ReadError extends Error {}

/** A file holds flux, but nothing in it says at which wavelengths. */
export class NoWavelengthError extends ReadError {}
