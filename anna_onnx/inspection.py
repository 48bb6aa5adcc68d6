"""Inspection: what a file holds, and what was assumed about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from anna_onnx.errors import AnnaError
from anna_onnx.readers import ReadOptions, read_each
from anna_onnx.spectrum import Spectrum

SHOWN = 1000  # spectra of one file


@dataclass(frozen=True)
class Description:
    """A few lines on a file or on a spectrum in it; `failed` when it could not be read."""

    text: str
    failed: bool = False


def inspect_files(files: Iterable[str], **read: Any) -> Iterator[Description]:
    """Describe the spectra of files; a file that cannot be read says why, and the others follow.

    Parameters
    ----------
    files : iterable of str
    **read
        See `anna_onnx.readers.ReadOptions`.

    Yields
    ------
    Description
    """
    options = ReadOptions(**read)
    for file in files:
        n, n_unread, notes = 0, 0, None
        try:
            for spectrum in read_each(file, options):
                if not isinstance(spectrum, Spectrum):
                    n_unread += 1
                    if n_unread <= SHOWN:
                        yield Description(str(spectrum.error), failed=True)
                    continue
                n += 1
                if n <= SHOWN:
                    # Notes that hold for a whole file are said once.
                    lines = [describe(spectrum), *(f"    {note}" for note in spectrum.notes if spectrum.notes != notes)]
                    yield Description("\n".join(lines))
                    notes = spectrum.notes
        except AnnaError as error:
            yield Description(str(error), failed=True)
            continue
        more = f", the first {SHOWN} shown" if n > SHOWN else ""
        more += f", {n_unread} more cannot be read" if n_unread else ""
        if n or n_unread > SHOWN:
            yield Description(f"{file}: {n} {'spectrum' if n == 1 else 'spectra'}{more}")


def describe(spectrum: Spectrum) -> str:
    """Return a line on a spectrum."""
    first, last = spectrum.wavelength[[0, -1]]
    bad = int(np.count_nonzero(spectrum.bad))
    facts = [
        f"{spectrum.n_pixel} pixels",
        f"{first:.2f}-{last:.2f} Å",
        f"medium {spectrum.medium}",
        f"frame {spectrum.frame}",
        "with errors" if spectrum.sigma is not None else "no errors",
        f"{bad} bad" if bad else "none bad",
    ]
    if spectrum.resolution is not None:
        facts.append(f"R {spectrum.resolution:.0f}")
    if spectrum.radial_velocity is not None:
        facts.append(f"rv {spectrum.radial_velocity:.2f} km/s")
    return f"{spectrum.name}: {', '.join(facts)}"
