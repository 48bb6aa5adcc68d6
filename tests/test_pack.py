"""Building a training set from files of spectra and a table of labels."""

from __future__ import annotations

import csv
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner

from anna_onnx.arrays import FloatArray
from anna_onnx.bundle import write as write_bundle
from anna_onnx.errors import TrainingSetError
from anna_onnx.labels import Label
from anna_onnx.labeltable import read_labels
from anna_onnx.medium import doppler
from anna_onnx.novelty import Novelty
from anna_onnx.packing import PackReport, pack
from anna_onnx.preparation import Preparation, PrepareOptions
from anna_onnx.resampling import Grid
from anna_onnx.sidecar import Sidecar
from anna_onnx.trainingset import TrainingSet
from anna_onnx.wire import encode_bytes
from anna_onnx_cli.anna import main

GRID = Grid(np.arange(5000.0, 5050.05, 0.1), "air")
MODEL = Preparation(GRID)
STARS = {"alpha": (5772.0, 4.44), "beta": (4500.0, 2.5), "gamma": (6500.0, np.nan)}


def flux_of(teff: float, wavelength: FloatArray) -> FloatArray:
    return 1 - (teff - 3000) / 5000 * np.exp(-0.5 * ((wavelength - 5025) / 0.5) ** 2)


def write_text(path: Path, teff: float, scale: float = 1.0, first: float = 4995.0, error: bool = True) -> Path:
    wavelength = np.arange(first, 5055.0, 0.05)
    columns = [wavelength, scale * flux_of(teff, wavelength)]
    columns += [np.full(wavelength.size, 0.01 * scale)] if error else []
    np.savetxt(path, np.column_stack(columns), header="wavelength flux error" if error else "wavelength flux")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, (teff, _) in STARS.items():
        write_text(tmp_path / f"{name}.txt", teff)
    return tmp_path


def table(folder: Path, **columns: Any) -> Path:
    given = {"file": list(STARS), "teff": [s[0] for s in STARS.values()], "logg": [s[1] for s in STARS.values()]}
    Table(given | columns).write(folder / "labels.csv", overwrite=True)
    return folder / "labels.csv"


def pack_all(folder: Path, labels: Path, **options: Any) -> tuple[TrainingSet, PackReport]:
    report = pack(read_labels(labels), sorted(folder.glob("*.txt")), folder / "train.h5", MODEL, **options)
    return TrainingSet.open(folder / "train.h5"), report


def test_errors_of_labels_come_along(folder: Path) -> None:
    packed, _ = pack_all(folder, table(folder, e_teff=[50.0, -9999.0, 80.0], e_age=[1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(packed.aux["e_teff"], [50, np.nan, 80])
    assert set(packed.aux) == {"snr", "e_teff"}


def test_spectra_and_labels_come_together_by_file_name(folder: Path) -> None:
    packed, report = pack_all(folder, table(folder))
    assert list(packed.id) == ["alpha", "beta", "gamma"]
    assert packed.label_names == ("teff", "logg")
    assert packed.label_units == ("K", "dex(cm / s2)")
    np.testing.assert_array_equal(packed.labels, [list(star) for star in STARS.values()])
    for flux, (teff, _) in zip(packed.flux, STARS.values(), strict=True):
        np.testing.assert_allclose(flux, flux_of(teff, GRID.wavelength), atol=2e-3)
    assert packed.grid == GRID
    assert packed.sigma is not None
    # Of two pixels to one, which is sharpened by a sixteenth of the curvature.
    sharpened = np.sqrt((1 + 2 / 16) ** 2 + 2 / 16**2)
    assert packed.sigma.mean() == pytest.approx(0.01 / np.sqrt(2) * sharpened, rel=0.01)
    assert packed.mask is not None
    assert not packed.mask.any()
    assert packed.aux["snr"].min() > 100
    assert (report.packed, report.dropped) == (3, 0)


@pytest.mark.parametrize("name", ["{0}", "{0}.txt", "{1}/{0}.txt"])
def test_a_file_may_be_named_with_folder_or_without_suffix(folder: Path, name: str) -> None:
    labels = table(folder, file=[name.format(star, folder) for star in STARS])
    assert pack_all(folder, labels)[1].packed == 3


@pytest.mark.parametrize("name", ["labels.csv", "LABELS.CSV", "Labels.Csv.gz"])
def test_a_table_of_labels_is_csv_by_its_suffix_in_any_case(folder: Path, name: str) -> None:
    text = table(folder).read_text(encoding="utf-8") + "delta,5000\n"  # what only CSV allows: a cell that is left out
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert list(read_labels(folder / name).keys) == [*STARS, "delta"]


def test_what_is_left_out_is_reported_and_stops_nothing(folder: Path) -> None:
    (folder / "broken.txt").write_bytes(b"\x00\xff not a spectrum")
    write_text(folder / "counts.txt", 5000, scale=3000)
    write_text(folder / "half.txt", 5000, first=5020)
    write_text(folder / "stranger.txt", 5000)
    write_text(folder / "unknown.txt", 5000)
    write_text(folder / "twice.txt", 5000)
    names = [*STARS, "counts", "half", "unknown", "absent", "twice", "twice"]
    labels = table(folder, file=names, teff=[5772, 4500, 6500, 1, 2, np.nan, 4, 5, 6], logg=[np.nan] * 9)
    packed, report = pack_all(folder, labels, report=folder / "report.csv")
    assert list(packed.id) == ["alpha", "beta", "gamma"]
    with (folder / "report.csv").open(encoding="utf-8") as file:
        why = {Path(row["file"]).stem + row["id"]: row["why"].split(":")[0] for row in csv.DictReader(file)}
    assert why["broken"] == "unreadable"
    assert why["counts"] == "not_normalized"
    assert why["half"] == "partial_coverage"
    assert why["stranger"] == "no labels"
    assert why["unknown"] == "no label known"
    assert why["twice"] == "ambiguous"
    assert why["labelsabsent"] == "no spectrum for these labels"
    assert report.summary().startswith("3 spectra packed, 9 left out\n")
    assert "1 × partial_coverage" in report.summary()


def test_half_a_spectrum_can_be_kept_with_its_mask(folder: Path) -> None:
    write_text(folder / "beta.txt", 4500, first=5020)
    packed, _ = pack_all(folder, table(folder), keep=["partial_coverage"])
    assert packed.mask is not None
    assert packed.mask.sum(axis=1).tolist() == [0, 200, 0]
    assert (packed.flux[1][packed.mask[1] > 0] == 1).all()
    assert np.isfinite(packed.flux).all()
    with pytest.raises(TrainingSetError, match="no flag 'partial'"):
        pack_all(folder, table(folder), keep=["partial"])


def test_errors_are_estimated_when_only_some_spectra_have_them(folder: Path) -> None:
    wavelength = np.arange(4995, 5055, 0.1)
    noisy = 1 + 0.02 * np.random.default_rng(0).standard_normal(wavelength.size)
    np.savetxt(folder / "beta.txt", np.column_stack([wavelength, noisy]))
    packed, _ = pack_all(folder, table(folder))
    assert packed.sigma is not None
    assert packed.sigma[1] == pytest.approx(0.02, rel=0.2)
    for name in STARS:
        write_text(folder / f"{name}.txt", 5000, error=False)
    assert pack_all(folder, table(folder))[0].sigma is None


def test_the_velocity_comes_from_a_column(folder: Path) -> None:
    wavelength = np.arange(4990, 5060, 0.05)
    for name, rv in zip(STARS, (50.0, -120.0, 0.0), strict=True):
        np.savetxt(
            folder / f"{name}.txt", np.column_stack([wavelength * doppler(rv), flux_of(STARS[name][0], wavelength)])
        )
    packed, _ = pack_all(folder, table(folder, vhelio=[50.0, -120.0, np.nan]), rv_column="vhelio")
    for flux, (teff, _) in zip(packed.flux, STARS.values(), strict=True):
        np.testing.assert_allclose(flux, flux_of(teff, GRID.wavelength), atol=2e-3)
    np.testing.assert_array_equal(packed.aux["rv_removed"], [50, -120, np.nan])
    with pytest.raises(TrainingSetError, match="no column 'vheli' of numbers; did you mean 'vhelio'"):
        pack_all(folder, table(folder, vhelio=[1.0, 2, 3]), rv_column="vheli")


def test_the_preparation_rides_in_the_training_set(folder: Path) -> None:
    packed, _ = pack_all(folder, table(folder), options=PrepareOptions(rv=0.0))
    stored = Preparation.from_dict(json.loads(packed.attrs["preparation"]), packed.grid)
    assert stored.frame == "rest"
    assert stored.min_coverage == MODEL.min_coverage


def multispec(path: Path, n: int) -> Path:
    """An IRAF image of `n` spectra on one linear wavelength axis."""
    wavelength = np.arange(4995.0, 5055.0, 0.05)
    header = fits.Header({"CRVAL1": 4995.0, "CDELT1": 0.05, "CRPIX1": 1.0, "CTYPE1": "LINEAR", "WAT1_001": ""})
    header["APNUM1"] = "1 1"
    flux = np.array([flux_of(4000 + 500 * row, wavelength) for row in range(n)], dtype=np.float32)
    fits.PrimaryHDU(flux, header).writeto(path)
    return path


def test_rows_of_one_file_are_told_apart_by_a_column(tmp_path: Path) -> None:
    path = multispec(tmp_path / "many.fits", 3)
    labels = tmp_path / "labels.csv"
    Table({"file": ["many.fits"] * 2, "row": [2, 0], "teff": [5000, 4000]}).write(labels)
    report = pack(read_labels(labels), [path], tmp_path / "train.h5", MODEL)
    packed = TrainingSet.open(tmp_path / "train.h5")
    assert packed.labels[:, 0].tolist() == [4000, 5000]
    np.testing.assert_allclose(packed.flux[1], flux_of(5000, GRID.wavelength), atol=2e-3)
    assert report.dropped == 1


def test_many_spectra_never_share_one_row_because_of_their_file_name(tmp_path: Path) -> None:
    path = multispec(tmp_path / "many.fits", 3)
    Table({"file": ["many"], "teff": [5000]}).write(tmp_path / "labels.csv")
    with pytest.raises(TrainingSetError, match="3 × ambiguous"):
        pack(read_labels(tmp_path / "labels.csv"), [path], tmp_path / "train.h5", MODEL)
    assert not (tmp_path / "train.h5").exists()


def test_many_spectra_never_share_one_row_because_of_their_header(tmp_path: Path) -> None:
    path = multispec(tmp_path / "many.fits", 3)
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["OBJECT"] = "sky"
    good = write_text(tmp_path / "good.txt", 5000)
    Table({"id": ["sky", "good"], "teff": [4000, 5000]}).write(tmp_path / "labels.csv")
    report = pack(read_labels(tmp_path / "labels.csv"), [path, good], tmp_path / "train.h5", MODEL)
    packed = TrainingSet.open(tmp_path / "train.h5")
    assert list(packed.id) == ["good"]
    np.testing.assert_allclose(packed.flux[0], flux_of(5000, GRID.wavelength), atol=2e-3)
    assert "3 × ambiguous" in report.summary()


def test_the_command_packs_and_says_what_it_did(folder: Path) -> None:
    for name, (teff, _) in STARS.items():
        write_text(folder / f"{name}.txt", teff, scale=500)
    files = [str(path) for path in sorted(folder.glob("*.txt"))]
    output = folder / "train.h5"
    arguments = ["pack", str(table(folder)), *files, "-o", str(output), "--wavelength", "5000:5050:0.1"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "3 × not_normalized" in refused.output
    done = CliRunner().invoke(main, [*arguments, "--continuum", "polynomial:1", "--ignore", "5020:5030"])
    assert done.exit_code == 0, done.output
    assert f"{output}: 3 spectra written" in done.output
    packed = TrainingSet.open(output)
    np.testing.assert_allclose(packed.flux[0], flux_of(5772, GRID.wavelength), atol=5e-3)
    assert len((folder / "train.h5.csv").read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.parametrize("listed", ["@list.txt", "-"])
def test_the_command_takes_a_list_of_files(folder: Path, listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = table(folder)
    files = "".join(f"{folder / name}.txt\n" for name in STARS)
    (folder / "list.txt").write_text(files, encoding="utf-8")
    monkeypatch.chdir(folder)
    output = str(folder / "train.h5")
    command = ["pack", str(labels), listed, "-o", output, "--wavelength", "5000:5050:0.2"]
    result = CliRunner().invoke(main, command, input=files)
    assert result.exit_code == 0, result.output
    assert len(TrainingSet.open(output)) == len(STARS)


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_a_place_where_nothing_can_be_written_is_one_line(folder: Path, option: str) -> None:
    files = [str(write_text(folder / f"{name}.txt", teff)) for name, (teff, _) in STARS.items()]
    arguments = ["pack", str(table(folder)), *files, "--wavelength", "5000:5050:0.1"]
    result = CliRunner().invoke(
        main, [*arguments, "-o", str(folder / "a.h5"), option, str(folder / "labels.csv" / "b")]
    )
    assert result.exit_code == 1
    assert re.search(r"labels.csv.b: cannot be written \(", result.output)


def test_the_command_needs_wavelengths_from_somewhere(folder: Path) -> None:
    result = CliRunner().invoke(main, ["pack", str(table(folder)), "x.txt", "-o", str(folder / "train.h5")])
    assert result.exit_code == 1
    assert "either --wavelength or --like" in result.output


def test_spectra_can_be_prepared_as_for_a_model(folder: Path) -> None:
    """A model brings its grid, resolving power and mean spectrum; the velocity is measured against that."""
    wavelength = np.arange(4990, 5060, 0.05)
    for name, rv in zip(STARS, (50.0, -120.0, 0.0), strict=True):
        flux = flux_of(5000, wavelength) - 0.5 * np.exp(-0.5 * ((wavelength - 5010) / 0.4) ** 2)
        np.savetxt(folder / f"{name}.txt", np.column_stack([wavelength * doppler(rv), flux]))
    mean = flux_of(5000, GRID.wavelength) - 0.5 * np.exp(-0.5 * ((GRID.wavelength - 5010) / 0.4) ** 2)
    novelty = Novelty(mean, np.zeros((1, GRID.n_pixel)), np.array([0.01]), np.array([0.01]), 0.01)
    sidecar = Sidecar(
        (Label("teff", 4000.0, 7000.0),), replace(MODEL, frame="rest", resolution=9000.0), novelty=novelty
    )
    write_bundle(folder / "model.onnx", encode_bytes(7, b""), sidecar)
    files = [str(path) for path in sorted(folder.glob("*.txt"))]
    arguments = ["pack", str(table(folder)), *files, "-o", str(folder / "train.h5"), "--rv", "auto"]
    named = CliRunner().invoke(main, [*arguments, "--like", "no-such-model"])
    assert "no-such-model: no such file; released models: fgk-" in named.output
    result = CliRunner().invoke(main, [*arguments, "--like", str(folder / "model.onnx")])
    assert result.exit_code == 0, result.output
    packed = TrainingSet.open(folder / "train.h5")
    assert packed.grid == GRID
    assert packed.attrs["resolution"] == 9000
    np.testing.assert_allclose(packed.aux["rv_removed"], [50, -120, 0], atol=0.5)
    np.testing.assert_allclose(packed.flux, np.tile(mean, (3, 1)), atol=0.02)
