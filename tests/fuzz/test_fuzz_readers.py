"""A moment of random fuzzing, and every seed as it is."""

from __future__ import annotations

import pytest

from anna_onnx.readers import read_spectra
from tests.fuzz.fuzz_readers import run_at_random
from tests.fuzz.seeds import seeds

SEEDS = dict(seeds())


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_is_a_spectrum(tmp_path, name):
    if name in ("compressed", "wtextimage"):
        pytest.skip("a seed for the way there: it has no wavelengths")
    (tmp_path / name).write_bytes(SEEDS[name])
    assert read_spectra(tmp_path / name)


def test_mutated_files_end_in_spectra_or_an_error_for_the_user():
    assert run_at_random(4.0) > 20
