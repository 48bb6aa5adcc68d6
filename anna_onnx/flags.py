"""Flags: what a person should know before believing a row of the result table."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """One bit each; the table has their names in `flags` and their sum in `flag_bits`.

    ==================  ====================================================================
    unreadable          the file could not be read; the message says why
    no_coverage         the spectrum and the model share no or hardly any good pixels: there are no labels
    partial_coverage    less of the model's range is covered, or more is missing inside of it, than in training
    bad_pixels          many pixels inside the covered range are marked bad
    low_snr             the signal-to-noise ratio is below the training set's
    low_resolution      the resolving power is below the training set's
    outside_labels      the labels lie outside the training set by more than their errors
    unlike_training     the spectrum looks like nothing in the training set
    medium_unknown      nothing says whether the wavelengths are in air or vacuum, or the lines doubt it
    frame_unknown       nothing says how far the wavelengths are shifted against the training set's
    not_normalized      the continuum is not near 1
    ==================  ====================================================================

    `unlike_training` is set for 1 % of clean spectra, `outside_labels` for one
    sixth of the stars at the very edge of a range, `low_snr` for less than 1 % at the
    least S/N of the training, `medium_unknown` for less than 1 % of the stars between
    -100 and 100 km/s; the others for none, being right or wrong by what a header states.
    """

    unreadable = 1
    no_coverage = 2
    partial_coverage = 4
    bad_pixels = 8
    low_snr = 16
    low_resolution = 32
    outside_labels = 64
    unlike_training = 128
    medium_unknown = 256
    frame_unknown = 512
    not_normalized = 1024


def names(flags: Flag) -> str:
    """Return the names of the flags that are set, separated by spaces."""
    return " ".join(str(flag.name) for flag in Flag if flag & flags)
