"""The benchmark of flags takes its stars from a file, or from a folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "outliers.py"
if not SCRIPT.is_file():
    pytest.skip("no benchmarks here: this is no checkout", allow_module_level=True)


def test_the_stars_of_a_folder_are_those_of_the_validation_set(tmp_path):
    spec = importlib.util.spec_from_file_location("outliers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.stars_of(tmp_path) == tmp_path / "valid_1000.bin"
    assert module.stars_of(tmp_path / "test.h5") == tmp_path / "test.h5"
