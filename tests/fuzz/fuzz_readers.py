"""Any bytes must end in spectra or in an AnnaError, within 5 s and 1 GB.

Coverage-guided, for as long as wanted::

    pip install atheris
    python -m tests.fuzz.seeds corpus
    python -m tests.fuzz.fuzz_readers corpus -max_total_time=3600 -timeout=5 -rss_limit_mb=1024

Without atheris, ``python -m tests.fuzz.fuzz_readers --random SECONDS`` mutates
the seeds at random, as the test in `test_fuzz_readers` does for a moment.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SLOW = 5.0  # seconds
MAX_SPECTRA = 1000
_TOKENS = (
    b"NAXIS1  =", b"NAXIS2  =", b"BITPIX  =", b"TFIELDS =", b"TFORM1  =", b"CTYPE1  =", b"CRVAL1  =", b"CDELT1  =",
    b"DC-FLAG =", b"PCOUNT  =", b"THEAP   =", b"END", b"1E308", b"-1", b"99999999999", b"nan", b"inf", b"0", b"'",
)  # fmt: skip


def read_bytes(data: bytes, path: Path) -> None:
    """Read bytes as a file in several ways; only an `AnnaError` may be raised."""
    from anna_onnx.errors import AnnaError
    from anna_onnx.readers import ReadOptions, iter_spectra

    path.write_bytes(data)
    for options in (ReadOptions(), ReadOptions(hdu=1, wave_unit="nm"), ReadOptions(merge_orders=True)):
        try:
            for _, spectrum in zip(range(MAX_SPECTRA), iter_spectra(path, options), strict=False):
                assert (np.diff(spectrum.wavelength) > 0).all()
        except AnnaError:
            pass


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """Return bytes with a few changes: flipped, cut, repeated, overwritten with words of the formats."""
    mutated = bytearray(data)
    for _ in range(generator.integers(1, 6)):
        at = int(generator.integers(0, len(mutated) + 1))
        length = int(generator.integers(1, 200))
        kind = generator.integers(0, 6)
        if kind == 0 and at < len(mutated):
            mutated[at] ^= 1 << int(generator.integers(0, 8))
        elif kind == 1:
            token = _TOKENS[generator.integers(0, len(_TOKENS))]
            mutated[at : at + len(token)] = token
        elif kind == 2:
            del mutated[at : at + length]
        elif kind == 3:
            mutated[at:at] = mutated[at : at + length]
        elif kind == 4:
            # Digits of a header card, where sizes and counts stand.
            card = at - at % 80
            mutated[card + 10 : card + 30] = str(int(generator.integers(-5, 2**40))).rjust(20).encode()
        else:
            mutated[at : at + length] = generator.bytes(length)
    return bytes(mutated)


def mutations(seeds: list[bytes], generator: np.random.Generator, seconds: float) -> Iterator[bytes]:
    """Return mutated seeds until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield mutate(seeds[generator.integers(0, len(seeds))], generator)


def import_last_resort() -> None:
    """Import specutils, where it is installed, so that the seconds that this takes are no file's."""
    if importlib.util.find_spec("specutils"):
        importlib.import_module("specutils")


def run_at_random(seconds: float, seed: int = 0) -> int:
    """Read mutated seeds; return how many, raise what is no `AnnaError`, and complain about slow ones."""
    from tests.fuzz.seeds import seeds

    import_last_resort()
    # HDF5 is tried in another process, which would take most of the time.
    contents = [content for name, content in seeds() if name != "hdf5"]
    n = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz"
        for data in mutations(contents, np.random.default_rng(seed), seconds):
            start = time.monotonic()
            read_bytes(data, path)
            assert time.monotonic() - start < SLOW, f"{len(data)} bytes took more than {SLOW} s"
            n += 1
    return n


def main() -> None:
    """Run atheris with the arguments of libFuzzer, or random mutations."""
    if sys.argv[1:2] == ["--random"]:
        print(f"{run_at_random(float(sys.argv[2]), seed=os.getpid())} files read")
        return
    import atheris

    import_last_resort()
    path = Path(tempfile.mkdtemp()) / "fuzz"
    with atheris.instrument_imports(include=["anna_onnx"]):
        for module in pkgutil.iter_modules(importlib.import_module("anna_onnx.readers").__path__):
            importlib.import_module(f"anna_onnx.readers.{module.name}")
    atheris.Setup(sys.argv, lambda data: read_bytes(data, path))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
