/** Flags: what a person should know before believing a row; the bits are those of `anna_onnx.flags.Flag`. */

export const FLAG = {
  unreadable: 1,
  no_coverage: 2,
  partial_coverage: 4,
  bad_pixels: 8,
  low_snr: 16,
  low_resolution: 32,
  outside_labels: 64,
  unlike_training: 128,
  medium_unknown: 256,
  frame_unknown: 512,
  not_normalized: 1024,
} as const;

export type FlagName = keyof typeof FLAG;

export const MEANING: Record<FlagName, string> = {
  unreadable: "It could not be read; the message says why.",
  no_coverage: "The spectrum and the model share no or hardly any good pixels: there are no labels.",
  partial_coverage: "Less of the model's range is covered, or more is missing inside of it, than in training.",
  bad_pixels: "Many pixels inside the covered range are bad.",
  low_snr: "The signal-to-noise ratio is below the training set's.",
  low_resolution: "The resolving power is below the training set's.",
  outside_labels: "The labels lie outside the training set by more than their errors.",
  unlike_training: "The spectrum looks like nothing in the training set.",
  medium_unknown: "Nothing says whether the wavelengths are in air or vacuum, or the lines doubt it.",
  frame_unknown: "Nothing says how far the wavelengths are shifted against the training set's.",
  not_normalized: "The continuum is not near 1.",
};

/** Return the names of the flags that are set, in the order of their bits. */
export function flagNames(bits: number): FlagName[] {
  return (Object.keys(FLAG) as FlagName[]).filter((name) => FLAG[name] & bits);
}
