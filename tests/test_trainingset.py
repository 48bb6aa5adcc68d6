"""Training sets: written as they come, read lazily, whole or not at all."""

import dataclasses
import subprocess
import sys

import h5py
import numpy as np
import pytest

from anna_onnx.errors import ResultError, TrainingSetError, VersionError
from anna_onnx.resampling import Grid
from anna_onnx.trainingset import TrainingSet, TrainingSetWriter

GRID = Grid(np.linspace(6600, 6610, 11), "air")
NAMES, UNITS = ("teff", "logg"), ("K", "dex(cm / s2)")


@pytest.fixture
def columns():
    random = np.random.default_rng(1)
    return {
        "flux": random.normal(1, 0.1, (5, 11)).astype(np.float32),
        "labels": random.uniform(size=(5, 2)),
        "id": np.arange(5) + 0.5,
    }


def write(path, columns, n=5, **options):
    with TrainingSetWriter(path, GRID, NAMES, UNITS, n, **options) as writer:
        for rows in (slice(0, 3), slice(3, 5)):
            writer.append(**{name: values[rows] for name, values in columns.items()})


def test_what_is_written_in_blocks_is_read_back(tmp_path, columns):
    write(tmp_path / "a.h5", columns, attrs={"origin": "test"})
    read = TrainingSet.open(tmp_path / "a.h5")
    assert len(read) == 5
    assert read.grid == GRID
    assert (read.label_names, read.label_units) == (NAMES, UNITS)
    for name, values in columns.items():
        np.testing.assert_array_equal(getattr(read, name), values)
    assert read.attrs["origin"] == "test"


def test_flux_is_memory_mapped(tmp_path, columns):
    write(tmp_path / "a.h5", columns)
    assert isinstance(TrainingSet.open(tmp_path / "a.h5").flux, np.memmap)


def test_a_compressed_file_is_read_too(tmp_path, columns):
    write(tmp_path / "a.h5", columns)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["flux"]
        file.create_dataset("flux", data=columns["flux"], compression="gzip")
    np.testing.assert_array_equal(TrainingSet.open(tmp_path / "a.h5").flux, columns["flux"])


def test_text_ids_sigma_mask_and_other_columns_come_along(tmp_path, columns):
    more = {"sigma": columns["flux"] * 0.01, "mask": (columns["flux"] > 1).astype(np.uint8)}
    with TrainingSetWriter(
        tmp_path / "a.h5", GRID, NAMES, UNITS, 5, sigma=True, mask=True, id_dtype="str", aux={"rv": "f8"}
    ) as writer:
        writer.append(columns["flux"], columns["labels"], ["α Cen", *"bcde"], **more, aux={"rv": np.arange(5.0)})
    read = TrainingSet.open(tmp_path / "a.h5")
    assert read.id[0] == "α Cen"
    np.testing.assert_array_equal(read.sigma, more["sigma"])
    np.testing.assert_array_equal(read.mask, more["mask"])
    np.testing.assert_array_equal(read.aux["rv"], np.arange(5.0))


def test_a_file_that_was_not_finished_does_not_appear(tmp_path, columns):
    def stop_halfway():
        with TrainingSetWriter(tmp_path / "a.h5", GRID, NAMES, UNITS, 5) as writer:
            writer.append(columns["flux"][:2], columns["labels"][:2], columns["id"][:2])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_halfway()
    assert list(tmp_path.iterdir()) == []


def test_fewer_spectra_than_announced_are_an_error(tmp_path, columns):
    with pytest.raises(TrainingSetError, match="5 spectra given, 9 announced"):
        write(tmp_path / "a.h5", columns, n=9)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_major_version_is_refused_and_a_newer_minor_one_is_not(tmp_path, columns):
    write(tmp_path / "a.h5", columns)
    for version, refused in (("1.7", False), ("2.0", True)):
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            file.attrs["format_version"] = version
        if refused:
            with pytest.raises(VersionError, match="upgrade"):
                TrainingSet.open(tmp_path / "a.h5")
        else:
            TrainingSet.open(tmp_path / "a.h5")


@pytest.mark.parametrize("damage", ["flux", "labels", "wavelength"])
def test_a_file_that_lacks_a_part_is_refused_by_name(tmp_path, columns, damage):
    write(tmp_path / "a.h5", columns)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file[damage]
    with pytest.raises(TrainingSetError, match=r"a\.h5"):
        TrainingSet.open(tmp_path / "a.h5")


def test_a_truncated_file_is_refused(tmp_path, columns):
    write(tmp_path / "a.h5", columns)
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingSetError, match="not a readable training set"):
        TrainingSet.open(tmp_path / "a.h5")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TrainingSetError, match=r"none\.h5: no such file"):
        TrainingSet.open(tmp_path / "none.h5")


VELOCITIES = [
    ({"rv": [1.0, 2.0], "dummy": [3.0, 4.0]}, None, [1.0, 2.0]),
    ({"dummy": [3.0, 4.0]}, None, None),  # the old program let it hold anything
    ({"dummy": [3.0, 4.0]}, "dummy", [3.0, 4.0]),
    ({"rv": [1.0, 2.0], "measured": [5.0, 6.0]}, "measured", [5.0, 6.0]),
    ({"rv": [1.0, np.inf]}, None, [1.0, np.nan]),
    ({"rv": [3, 4]}, None, [3.0, 4.0]),
    ({"rv": ["fast", "slow"]}, None, None),
    ({}, None, None),
]


@pytest.mark.parametrize(("aux", "column", "found"), VELOCITIES)
def test_velocities_are_those_asked_for_or_rv(tmp_path, columns, aux, column, found):
    write(tmp_path / "a.h5", columns)
    whole = TrainingSet.open(tmp_path / "a.h5")
    spectra = dataclasses.replace(whole, aux={name: np.array(values) for name, values in aux.items()})
    velocity = spectra.radial_velocity(column)
    assert velocity is None if found is None else np.array_equal(velocity, found, equal_nan=True)


def test_masked_flux_is_missing_when_it_is_read(tmp_path, columns):
    write(tmp_path / "a.h5", columns)
    whole = TrainingSet.open(tmp_path / "a.h5")
    mask = np.zeros(whole.flux.shape, dtype=np.uint8)
    mask[1, 2] = 1
    read = dataclasses.replace(whole, mask=mask).read_flux(np.array([1, 0]))
    assert np.argwhere(np.isnan(read)).tolist() == [[0, 2]]
    assert np.array_equal(read[1], whole.flux[0])


def test_a_folder_is_no_training_set(tmp_path):
    with pytest.raises(TrainingSetError, match="a folder, needed a file"):
        TrainingSet.open(tmp_path)


def test_a_disk_without_room_is_one_line_and_leaves_nothing(tmp_path):
    """In a process of its own: libhdf5 crashes at its end where a file could not be closed."""
    program = """
import resource, signal, sys
import numpy as np
from anna_onnx.errors import ResultError
from anna_onnx.resampling import Grid
from anna_onnx.trainingset import TrainingSetWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
try:
    with TrainingSetWriter("train.h5", Grid(np.arange(5000.0, 5100.0, 0.1)), ["teff"], ["K"], 200) as writer:
        for _ in range(2):
            writer.append(np.ones((100, 1000)), np.ones((100, 1)), np.arange(100))
except ResultError as error:
    print(error)
"""
    pytest.importorskip("resource")
    for room in (100, 20_000, 500_000):
        done = subprocess.run(
            [sys.executable, "-c", program, str(room)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("train.h5: cannot be written (File too large)\n", "")
        assert not list(tmp_path.iterdir())


def test_a_place_where_no_file_can_be_is_one_line(tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(ResultError, match=r"a.b\.h5: cannot be written \("):
        TrainingSetWriter(tmp_path / "a" / "b.h5", GRID, NAMES, UNITS, 5)
    with pytest.raises(TypeError):
        TrainingSetWriter(tmp_path / "c.h5", GRID, NAMES, UNITS, 5, attrs={"seed": 10**30})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
