"""Whatever the bytes, there is a result or an error that the user can act on."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import time
import zipfile
import zlib
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy import units

from anna_onnx.blocks import Block, Failure, Part, read_blocks
from anna_onnx.errors import AnnaError, ReadError
from anna_onnx.readers import ReadOptions, read_spectra
from anna_onnx.readers.assembly import are_measured
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


def zipped(*contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", b"")
        for number, content in enumerate(contents):
            archive.writestr(f"folder/{number}", content)
    return buffer.getvalue()


PACK = {"gzip": partial(gzip.compress, compresslevel=1), "bzip2": partial(bz2.compress, compresslevel=1), "zip": zipped}
LINES = b"".join(b"%d 1.0\n" % wavelength for wavelength in range(5000, 5010))


@pytest.mark.parametrize("kind", PACK)
def test_a_compressed_file_is_read_whatever_its_name(tmp_path, kind):
    (tmp_path / "a.txt").write_bytes(PACK[kind](LINES))
    (spectrum,) = read_spectra(tmp_path / "a.txt")
    assert spectrum.n_pixel == 10


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_not_unpacked(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("anna_onnx.readers.registry.MAX_UNPACKED", 2 << 20)
    (tmp_path / "a").write_bytes(PACK[kind](b"\0" * (3 << 20)))
    with pytest.raises(ReadError, match="more than 2 MB"):
        read_spectra(tmp_path / "a")


@pytest.mark.parametrize("kind", PACK)
def test_a_damaged_compressed_file_is_refused(tmp_path, kind):
    packed = PACK[kind](LINES * 100)
    other_sum = packed.replace(zlib.crc32(LINES * 100).to_bytes(4, "little"), b"\0\0\0\0")
    for damaged in (packed[: len(packed) // 2], packed[:4] + b"\xff" * 40 + packed[44:], other_sum):
        if damaged == packed:
            continue  # bzip2 has its sum not at a byte's beginning
        (tmp_path / "a").write_bytes(damaged)
        with pytest.raises(ReadError, match=kind):
            read_spectra(tmp_path / "a")


def test_of_an_archive_of_several_files_none_is_chosen(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(LINES, LINES))
    with pytest.raises(ReadError, match="2 files, needed one"):
        read_spectra(tmp_path / "a.zip")


def write_set(path: Path, **more: object) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "anna-trainingset"
        file["wavelength"] = np.arange(5000.0, 5010)
        file.create_dataset("flux", data=np.ones((3, 10), "f4"), **more)


@pytest.mark.parametrize("kind", ["S4", h5py.string_dtype()])
def test_names_of_a_training_set_are_text_whatever_their_length_in_the_file(tmp_path, kind):
    names = ["HD 1", "HD 2", "HD 3"]
    write_set(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.create_dataset("id", data=np.array(names, dtype="S4"), dtype=kind)
    (block,) = read_blocks([Part(str(tmp_path / "a.h5"))], ReadOptions())
    assert isinstance(block, Block)
    assert list(block.ids) == [star.id for star in read_spectra(tmp_path / "a.h5")] == names


def test_errors_far_above_all_fluxes_need_no_median(monkeypatch):
    monkeypatch.delattr("anna_onnx.readers.assembly._far_above")
    flux, sigma = np.array([[1.0, np.nan, 0.9], [0.0, -2.0, 1.0]]), np.array([[0.1, 1e10, 0.0], [np.inf, 1e20, 0.1]])
    assert are_measured(sigma, flux).tolist() == [[True, False, False], [False, False, True]]


def test_damaged_hdf5_is_refused_before_it_is_opened(tmp_path):
    write_set(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    assert len(read_spectra(tmp_path / "a.h5")) == 3
    for damaged, why in (
        (whole[:-1], "cut short"),
        (whole[:8] + b"\t" + whole[9:], "superblock"),
        (whole[:40], "40"),
    ):
        (tmp_path / "a.h5").write_bytes(damaged)
        with pytest.raises(ReadError, match=why):
            read_spectra(tmp_path / "a.h5")
        (item,) = read_blocks([Part(str(tmp_path / "a.h5"))], ReadOptions())
        assert isinstance(item, Failure)


@pytest.mark.parametrize("flux", [np.full((3, 10), b"1"), np.ones((3, 10), complex), np.ones((3, 0))])
def test_a_training_set_of_no_numbers_is_refused(tmp_path, flux):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["format"] = "anna-trainingset"
        file["wavelength"] = np.arange(5000.0, 5010)[: flux.shape[1]]
        file["flux"] = flux
    (item,) = read_blocks([Part(str(tmp_path / "a.h5"))], ReadOptions())
    assert isinstance(item, Failure)
    with pytest.raises(AnnaError):
        read_spectra(tmp_path / "a.h5")


@pytest.mark.parametrize("size", [0, 8, 200, 1 << 40])
def test_a_heap_over_which_libhdf5_would_never_end_is_refused(tmp_path, size):
    write_set(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["id"] = ["alpha", "beta", "gamma"]  # texts of any length stand in a global heap
    content = bytearray((tmp_path / "a.h5").read_bytes())
    heap = content.index(b"GCOL")
    free = heap + 16
    while content[free : free + 2] != b"\0\0":  # the pieces before the free space
        free += 16 + -(-int.from_bytes(content[free + 8 : free + 16], "little") // 8) * 8
    content[free + 8 : free + 16] = size.to_bytes(8, "little")
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(ReadError, match="global heap"):
        read_spectra(tmp_path / "a.h5")


def test_hdf5_in_huge_chunks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("anna_onnx.readers.hdf5._MAX_CHUNK", 1 << 18)
    write_set(tmp_path / "a.h5", chunks=(1 << 17, 1), maxshape=(None, 10), compression="gzip")
    with pytest.raises(ReadError, match="HDF5 chunks of"):
        read_spectra(tmp_path / "a.h5")
    (item,) = read_blocks([Part(str(tmp_path / "a.h5"))], ReadOptions())
    assert isinstance(item, Failure)


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


@pytest.mark.parametrize(
    "options",
    [
        {"medium": "water"},
        {"medium": ["air"]},
        {"frame": "lsr"},
        {"columns": ("wave",)},
        {"columns": 5},
        {"columns": (1, 2.5)},
        {"hdu": 1.5},
        {"hdu": True},
        {"wave_unit": 10},
        {"merge_orders": "no"},
    ],
)
def test_wrong_overrides_are_refused(options):
    with pytest.raises(ReadError):
        ReadOptions(**options)


def test_a_unit_of_astropy_is_as_good_as_its_name(tmp_path):
    path = tmp_path / "star.txt"
    np.savetxt(path, np.c_[np.linspace(0.5, 0.51, 50), np.ones(50)])
    (spectrum,) = read_spectra(path, wave_unit=units.um)
    assert spectrum.wavelength[0] == pytest.approx(5000)


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
