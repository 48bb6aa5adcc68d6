"""ANNA's binary training files: opened, converted there and back, refused with a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from anna_onnx.errors import LegacyError, ResultError, TrainingSetError
from anna_onnx.legacy import binary_to_hdf5, hdf5_to_binary, is_training_set, open_binary, open_training_set
from anna_onnx.trainingset import TrainingSet


def values(n: int = 3, n_label: int = 2, n_pixel: int = 4) -> np.ndarray:
    """The numbers of a file of `n` stars: star i has id 100 + i, and its columns count up from there."""
    wavelength = 6000 + 0.2 * np.arange(n_pixel)
    stars = 100 + np.arange(n)[:, None] + np.arange(n_label + 2 + n_pixel) / 8
    return np.concatenate([[n_pixel, n_label], wavelength, stars.ravel()])


def written(path: Path, numbers: np.ndarray, kind: str = "<f8") -> Path:
    numbers.astype(kind).tofile(path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path / "small.bin", values())


def test_open_finds_every_column(small):
    training_set = open_binary(small, ["teff", "logg"])
    assert_array_equal(training_set.grid.wavelength, 6000 + 0.2 * np.arange(4))
    assert_array_equal(training_set.id, [100, 101, 102])
    assert_array_equal(training_set.labels[1], [101.125, 101.25])
    assert_array_equal(training_set.aux["dummy"], [100.375, 101.375, 102.375])
    assert_array_equal(training_set.flux[2], 102.5 + np.arange(4) / 8)
    assert training_set.label_units == ("K", "dex(cm / s2)")


def test_flux_stays_on_disk(small):
    assert isinstance(open_binary(small).flux, np.memmap)


def test_names_default_to_numbers(small):
    assert open_binary(small).label_names == ("label_0", "label_1")


def test_names_must_be_as_many_as_labels(small):
    with pytest.raises(LegacyError, match="2 labels, but 3 names"):
        open_binary(small, ["teff", "logg", "feh"])


def test_either_kind_of_training_set_opens_by_content(small, tmp_path):
    converted = binary_to_hdf5(small, tmp_path / "misleading.bin")
    assert_array_equal(open_training_set(small).flux, open_training_set(converted.path).flux)
    with pytest.raises(TrainingSetError, match="no such file"):
        open_training_set(tmp_path / "none.bin")


def test_training_sets_are_known_by_their_beginning(small, shared, tmp_path):
    binary_to_hdf5(small, tmp_path / "new.h5")
    small.write_bytes(small.read_bytes()[:-4])
    (tmp_path / "spectrum.txt").write_text("6000 1.0\n6001 0.9\n", encoding="utf-8")
    assert is_training_set(small)
    assert is_training_set(tmp_path / "new.h5")
    assert not is_training_set(tmp_path / "spectrum.txt")
    assert not is_training_set(tmp_path / "none")
    assert not is_training_set(shared / "grid_6619_6831.h5")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 5), n_label=st.integers(1, 4), n_pixel=st.integers(2, 9))
def test_round_trip_keeps_every_bit(tmp_path_factory, data, n, n_label, n_pixel):
    folder = tmp_path_factory.mktemp("round")
    floats = st.floats(width=data.draw(st.sampled_from([32, 64])), allow_nan=False, allow_infinity=False)
    size = n * (n_label + 2 + n_pixel)
    wavelength = np.sort(
        data.draw(st.lists(st.floats(1e-3, 1e6), min_size=n_pixel, max_size=n_pixel, unique=True)),
    )
    stars = data.draw(st.lists(floats, min_size=size, max_size=size))
    old = written(folder / "old.bin", np.concatenate([[n_pixel, n_label], wavelength, stars]))
    binary_to_hdf5(old, folder / "new.h5", dummy=data.draw(st.sampled_from(["dummy", "rv"])))
    hdf5_to_binary(folder / "new.h5", folder / "back.bin")
    assert (folder / "back.bin").read_bytes() == old.read_bytes()


def test_training_file_round_trip(shared, tmp_path):
    binary_to_hdf5(shared / "valid_1000.bin", tmp_path / "valid.h5")
    hdf5_to_binary(tmp_path / "valid.h5", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == (shared / "valid_1000.bin").read_bytes()


def test_flux_is_stored_as_float32_only_when_that_loses_nothing(tmp_path):
    short = written(tmp_path / "short.bin", values())
    numbers = values()
    numbers[-1] = 0.1
    long = written(tmp_path / "long.bin", numbers)
    assert binary_to_hdf5(short, tmp_path / "short.h5").flux.dtype == np.float32
    assert binary_to_hdf5(long, tmp_path / "long.h5").flux.dtype == np.float64
    assert binary_to_hdf5(long, tmp_path / "forced.h5", dtype="f4").flux.dtype == np.float32


def test_ranges_and_dummy_are_kept(small, tmp_path):
    converted = binary_to_hdf5(
        small, tmp_path / "new.h5", ["teff", "logg"], low=[4000, 2.7], high=[7000, 4.8], medium="vacuum", dummy="rv"
    )
    assert converted.grid.medium == "vacuum"
    assert_array_equal(converted.aux["rv"], [100.375, 101.375, 102.375])
    with h5py.File(converted.path, locking=False) as file:
        assert_array_equal(file["labels"].attrs["low"], [4000, 2.7])
        assert_array_equal(file["labels"].attrs["high"], [7000, 4.8])


def test_ranges_must_be_as_many_as_labels(small, tmp_path):
    with pytest.raises(LegacyError, match="2 labels, but 1 values of 'low'"):
        binary_to_hdf5(small, tmp_path / "new.h5", low=[1.0])
    assert not (tmp_path / "new.h5").exists()


def test_a_place_where_no_file_can_be_is_named(small):
    with pytest.raises(ResultError, match=r"new\.h5: cannot be written \("):
        binary_to_hdf5(small, small / "new.h5")


def test_progress_ends_at_the_total(small, tmp_path):
    seen = []
    binary_to_hdf5(small, tmp_path / "new.h5", progress=lambda done, total, note="": seen.append((done, total)))
    assert seen == [(3, 6), (6, 6)]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 8 * (2 + 4 + 3 * 8) - 1))
def test_a_truncated_file_is_refused(tmp_path_factory, cut):
    path = written(tmp_path_factory.mktemp("cut") / "cut.bin", values())
    path.write_bytes(path.read_bytes()[:-cut])
    stars, rest = divmod(path.stat().st_size - 48, 64)
    if rest or stars <= 0:
        with pytest.raises(LegacyError):
            open_binary(path)
    else:
        assert len(open_binary(path)) == stars


def test_the_end_of_a_truncated_file_is_told(small):
    small.write_bytes(small.read_bytes()[:-12])
    with pytest.raises(
        LegacyError, match=r"ends at byte 228, after 6 of the 8 numbers of star 2 and 4 bytes.*truncate -s 176"
    ):
        open_binary(small)


def test_of_a_file_that_ends_in_its_first_star_there_is_nothing_to_keep(small):
    small.write_bytes(small.read_bytes()[:64])
    with pytest.raises(LegacyError, match=r"numbers of star 0: truncated, or with extra entries\. Copy it again$"):
        open_binary(small)


def test_extra_entries_are_refused(tmp_path):
    path = written(tmp_path / "extra.bin", np.append(values(), [1.0, 2.0]))
    with pytest.raises(LegacyError, match="after 2 of the 8 numbers of star 3: truncated, or with extra entries"):
        open_binary(path)


def test_a_big_endian_file_is_named(tmp_path):
    path = written(tmp_path / "big.bin", values(), ">f8")
    with pytest.raises(LegacyError, match=r"big-endian.*astype\('<f8'\)"):
        open_binary(path)


@pytest.mark.parametrize("n_pixel", [4.5, 0.0, -4.0, np.nan, np.inf, 1e300])
def test_a_number_of_pixels_must_be_whole(tmp_path, n_pixel):
    numbers = values()
    numbers[0] = n_pixel
    with pytest.raises(LegacyError, match="byte 0 says"):
        open_binary(written(tmp_path / "odd.bin", numbers))


def test_float32_numbers_are_not_mistaken(tmp_path):
    with pytest.raises(LegacyError, match="float32"):
        open_binary(written(tmp_path / "short.bin", values(), "<f4"))


def test_descending_wavelengths_are_refused(tmp_path):
    numbers = values()
    numbers[2:6] = numbers[5:1:-1].copy()
    with pytest.raises(LegacyError, match=r"6000.6, then 6000.4 at pixel 1 \(byte 24\): reverse"):
        open_binary(written(tmp_path / "down.bin", numbers))


@pytest.mark.parametrize(
    ("index", "what"),
    [(6 + 8, "star 1, id"), (6 + 8 + 2, "star 1, label 1"), (6 + 2 * 8 + 4 + 3, "star 2, flux at pixel 3")],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_located(tmp_path, index, what, value):
    numbers = values()
    numbers[index] = value
    with pytest.raises(LegacyError, match=rf"{value} in {what} \(byte {8 * index}\)"):
        open_binary(written(tmp_path / "nan.bin", numbers))


def test_the_unused_dummy_may_be_anything(tmp_path):
    numbers = values()
    numbers[6 + 3] = np.nan
    path = written(tmp_path / "dummy.bin", numbers)
    binary_to_hdf5(path, tmp_path / "new.h5")
    hdf5_to_binary(tmp_path / "new.h5", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == path.read_bytes()


def test_other_files_are_refused(tmp_path):
    for name, content in (("empty", b""), ("text", b"NUM_PX: 1001\nNUM_OUTS: 5\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LegacyError):
            open_binary(tmp_path / name)


def test_an_unknown_label_cannot_go_to_binary(small, tmp_path):
    converted = binary_to_hdf5(small, tmp_path / "new.h5")
    with h5py.File(converted.path, "r+", locking=False) as file:
        file["labels"][1, 0] = np.nan
    with pytest.raises(LegacyError, match="star 1, label 0"):
        hdf5_to_binary(converted.path, tmp_path / "back.bin")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("small.bin", "new.h5")] == []


def test_what_binary_cannot_hold_is_told(small, tmp_path):
    binary_to_hdf5(small, tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5", "r+", locking=False) as file:
        del file["id"], file["aux/dummy"]
        file["id"] = ["HD 1", "HD 2", "HD 3"]
        file["sigma"] = np.ones((3, 4), "f4")
    notes = " ".join(hdf5_to_binary(tmp_path / "new.h5", tmp_path / "back.bin"))
    assert "sigma" in notes
    assert "HD 1" in notes
    assert "the dummy entry is 0" in notes
    assert_array_equal(open_binary(tmp_path / "back.bin").id, [0, 1, 2])


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["2130943764893473536", "2130943764893473537", "2130943764893473538"], [0, 1, 2]),  # one float64
        (["1", "01", "2"], [0, 1, 2]),
        (["12", "0.5", "-7.0"], [12, 0.5, -7]),
        (np.array([2**53, 2**53 + 1, 5]), [0, 1, 2]),
        (np.array([2**53, 3, 5]), [2**53, 3, 5]),
    ],
)
def test_stars_are_numbered_where_their_ids_would_not_survive(small, tmp_path, ids, kept):
    binary_to_hdf5(small, tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5", "r+", locking=False) as file:
        del file["id"]
        file["id"] = ids
    notes = hdf5_to_binary(tmp_path / "new.h5", tmp_path / "back.bin")
    assert_array_equal(open_binary(tmp_path / "back.bin").id, kept)
    assert any("stars are numbered" in note for note in notes) == (kept == [0, 1, 2])


CONVERT_AND_MEASURE = """
import resource, sys
from anna_onnx.legacy import binary_to_hdf5, hdf5_to_binary
import h5py
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
binary_to_hdf5(sys.argv[1], sys.argv[1] + ".h5")
hdf5_to_binary(sys.argv[1] + ".h5", sys.argv[1] + ".back")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_memory_does_not_grow_with_the_file(tmp_path):
    n, n_pixel = 20_000, 1001
    with (tmp_path / "large.bin").open("wb") as file:
        np.concatenate([[n_pixel, 5], 6000 + 0.2 * np.arange(n_pixel)]).tofile(file)
        block = np.random.default_rng(1).random((1000, n_pixel + 7))
        for _ in range(n // 1000):
            block.tofile(file)
    command = [sys.executable, "-c", CONVERT_AND_MEASURE, str(tmp_path / "large.bin")]
    unit = 1 if sys.platform == "darwin" else 1024
    grown = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout) * unit
    assert (tmp_path / "large.bin").stat().st_size > 160e6
    assert grown < 120e6


def test_converted_file_is_an_ordinary_training_set(small, tmp_path):
    binary_to_hdf5(small, tmp_path / "new.h5", ["teff", "logg"])
    assert TrainingSet.open(tmp_path / "new.h5").label_names == ("teff", "logg")
