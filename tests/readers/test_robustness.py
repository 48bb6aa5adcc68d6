"""Whatever the bytes, there is a result or an error that the user can act on."""

from __future__ import annotations

import gzip
import os
import time

import numpy as np
import pytest

from anna_onnx.errors import AnnaError, ReadError
from anna_onnx.readers import ReadOptions, read_spectra
from tests.readers.files import card, multispec_bytes


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"\x89PNG\r\n\x1a\n" + b"\0" * 99, b"\x1f\x8b", b"SIMPLE  =", b"\x89HDF\r\n\x1a\n"]
)
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ReadError):
        read_spectra(tmp_path / "a")


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    if hasattr(os, "mkfifo"):  # elsewhere it is missing, too
        os.mkfifo(tmp_path / "pipe")
    for name in ("missing", ".", "pipe"):
        with pytest.raises(ReadError):
            read_spectra(tmp_path / name)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"\0" * (300 << 20), compresslevel=1))
    with pytest.raises(ReadError, match="256 MB"):
        read_spectra(tmp_path / "a")


@pytest.mark.parametrize(
    "cards",
    [
        {"BITPIX": -32, "NAXIS": 2, "NAXIS1": 10**9, "NAXIS2": 10**9},
        {"BITPIX": -32, "NAXIS": 999, **{f"NAXIS{i}": 2**31 for i in range(1, 1000)}},
        {"BITPIX": -32, "NAXIS": 1, "NAXIS1": -5},
        {"BITPIX": 7, "NAXIS": 1, "NAXIS1": 5},
        {"BITPIX": -32, "NAXIS": "x"},
    ],
)
def test_sizes_are_checked_before_memory_is_asked_for(tmp_path, cards):
    header = b"".join(
        card(key, value) for key, value in {"SIMPLE": True, **cards, "CRVAL1": 1.0, "CDELT1": 0.1}.items()
    )
    (tmp_path / "a").write_bytes((header + b"END".ljust(80)).ljust(2880 * 30))
    with pytest.raises(AnnaError):
        read_spectra(tmp_path / "a")


def test_a_table_larger_than_its_file_is_refused(tmp_path):
    cards = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 16, "NAXIS2": 10**12, "PCOUNT": 0, "GCOUNT": 1}
    columns = {"TFIELDS": 2, "TTYPE1": "wave", "TFORM1": "D", "TTYPE2": "flux", "TFORM2": "D"}
    primary = b"".join(card(k, v) for k, v in {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}.items()) + b"END".ljust(80)
    second = b"".join(card(k, v) for k, v in (cards | columns).items()) + b"END".ljust(80)
    (tmp_path / "a").write_bytes(primary.ljust(2880) + second.ljust(2880))
    with pytest.raises(ReadError, match="cut short"):
        read_spectra(tmp_path / "a")


@pytest.mark.parametrize("options", [{"medium": "water"}, {"frame": "lsr"}, {"columns": ("wave",)}])
def test_wrong_overrides_are_refused(options):
    with pytest.raises(ReadError):
        ReadOptions(**options)


def seconds(function):
    start = time.process_time()
    with pytest.raises(AnnaError):
        function()
    return time.process_time() - start


def test_long_words_and_many_functions_do_not_take_forever(tmp_path):
    path = tmp_path / "a"
    flux = np.ones((1, 2000), dtype="f4")
    functions = "1. 0. 1 1 1. 9. 5. " * 3000
    for spec in (
        "a" * 60000,
        "1 1 2 5000. .5 2000 0. 1. 2. " + functions,
        "1 1 2 5 5 2000 0 1 2 1. 0. 1 9000 " + "1 " * 9005,
    ):
        path.write_bytes(multispec_bytes(flux, [spec]))
        assert seconds(lambda: read_spectra(path)) < 2
    path.write_bytes(b"object:" + b" " * 10**6 + b"x" * 10**6)
    assert seconds(lambda: read_spectra(path)) < 2


def test_an_empty_table_at_the_end_of_a_file_without_padding_is_refused(tmp_path):
    cards = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 80, "NAXIS2": 0, "PCOUNT": 0, "GCOUNT": 1}
    columns = {"TFIELDS": 2, "TTYPE1": "wave", "TFORM1": "5D", "TTYPE2": "flux", "TFORM2": "5D"}
    primary = b"".join(card(k, v) for k, v in {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}.items()) + b"END".ljust(80)
    second = b"".join(card(k, v) for k, v in (cards | columns).items()) + b"END".ljust(80)
    (tmp_path / "a").write_bytes(primary.ljust(2880) + second)
    with pytest.raises(ReadError):
        read_spectra(tmp_path / "a")
