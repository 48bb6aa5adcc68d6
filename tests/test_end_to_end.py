"""The whole way through the commands: simulate, init, train, export, test, and infer as the colleague would."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anna_onnx.bundle import Bundle
from anna_onnx.errors import GridError
from anna_onnx.trainingset import TrainingSetWriter

PARAMS = """
seed = 3
[data]
train = "train.h5"
validation = "validation.h5"
[network]
kernel = 15
filters = 4
fc1 = 24
fc2 = 24
[augmentation]
snr = [100.0, 300.0]
continuum_offset = [-0.01, 0.01]
[[stage]]
learning_rate = 2e-3
steps = 150
optimizer = "adamw"
schedule = "cosine"
[validation]
interval = 50
[run]
threads = 1
checkpoint_interval = 50
"""


def anna(*words: object, command: str = "anna", cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, through its entry point."""
    program = shutil.which(command, path=str(Path(sys.executable).parent)) or command
    done = subprocess.run(
        [program, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder in which a small model was trained and exported."""
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    work = tmp_path_factory.mktemp("work")
    anna("simulate", "-n", 600, "--seed", 1, "-o", "train.h5", cwd=work)
    anna("simulate", "-n", 200, "--seed", 2, "-o", "validation.h5", cwd=work)
    anna("simulate", "-n", 3, "--seed", 3, "--snr", 200, "--fits", "spectra", cwd=work)
    (work / "params.toml").write_text(PARAMS, encoding="utf-8")
    anna("train", "params.toml", cwd=work)
    anna("export", "--onnx", cwd=work)
    return work


def test_a_model_is_exported_with_sidecar_and_card(work):
    assert {"model.onnx", "model.h5", "model.md"} <= {path.name for path in work.iterdir()}
    bundle = Bundle.load(work / "model.onnx")
    assert [label.name for label in bundle.sidecar.labels] == ["teff", "logg", "feh", "vmic", "vsini"]
    assert bundle.sidecar.provenance["calibrated_on"] == "validation set"


def test_the_network_holds_no_path_of_this_machine(work):
    assert b"site-packages" not in (work / "model.onnx").read_bytes()
    assert str(work).encode() not in (work / "model.onnx").read_bytes()


def test_training_learned_something(work):
    with next((work / "runs").glob("*/history.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [50, 100, 150]
    assert float(rows[-1]["rms_teff"]) < 3000 / np.sqrt(12)  # what guessing the mean would give


def test_fits_files_are_inferred_in_order_with_a_lone_model(work, tmp_path):
    shutil.copy(work / "model.onnx", tmp_path / "mailed.onnx")
    files = sorted(map(str, (work / "spectra").glob("*.fits")))
    anna("infer", "mailed.onnx", *files, "-o", "results.csv", command="anna-lite", cwd=tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == files
    assert all(float(row["e_teff"]) > 0 for row in rows)


def test_a_file_that_is_no_spectrum_does_not_stop_the_others(work, tmp_path):
    good = next(iter(sorted((work / "spectra").glob("*.fits"))))
    (tmp_path / "junk.fits").write_bytes(b"not a spectrum")
    done = anna("infer", work / "model.onnx", "junk.fits", good, command="anna-lite", cwd=tmp_path, status=1)
    first, second = csv.DictReader(done.stdout.splitlines())
    assert (first["flags"], first["teff"]) == ("unreadable", "nan")
    assert "junk.fits" in first["message"]
    assert float(second["teff"]) > 0


def test_the_self_test_passes_on_the_machine_that_trained(work):
    assert "good" in anna("selftest", "model.onnx", command="anna-lite", cwd=work).stdout


def test_torch_and_onnxruntime_agree_on_every_validation_spectrum(work):
    import torch

    from anna_onnx.session import Session
    from anna_onnx.training.checkpoint import RunDirectory
    from anna_onnx.training.frozen import Frozen, load_network
    from anna_onnx.trainingset import TrainingSet

    run = RunDirectory.newest(work / "runs")
    labels = run.labels()
    flux = np.asarray(TrainingSet.open(work / "validation.h5").flux)
    with torch.no_grad():
        ours, _ = Frozen(load_network(run), labels, None).eval()(torch.from_numpy(flux.copy()))
    theirs = Session(Bundle.load(work / "model.onnx")).run(flux).labels
    span = np.array([label.span for label in labels])
    assert np.abs((ours.numpy() - theirs) / span).max() < 1e-5


def test_testing_writes_the_residual_of_every_star_and_a_report(work, tmp_path):
    done = anna("test", work / "model.onnx", work / "validation.h5", "-o", tmp_path / "test", cwd=tmp_path)
    assert "rms / bound" in done.stdout
    assert "validation.h5 is what the weights were chosen and the errors calibrated with" in done.stdout
    with (tmp_path / "test" / "test_stats.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200
    first = {name: float(value) for name, value in rows[0].items()}
    assert first["d_teff"] == pytest.approx(first["inferred_teff"] - first["true_teff"], abs=1e-3)
    assert 0 < first["bound_teff"] < 3000 / np.sqrt(12)
    assert "data:image/svg+xml;base64," in (tmp_path / "test" / "report.html").read_text(encoding="utf-8")


def test_a_bound_that_cannot_be_computed_is_refused_only_when_its_grid_was_asked_for(work):
    from anna_onnx.training.evaluation import BoundOptions, evaluate_model

    bundle, data = Bundle.load(work / "model.onnx"), work / "validation.h5"
    found = evaluate_model(bundle, data, augment=False, bound=BoundOptions())
    assert found.bound is None
    assert "noise of the spectra is not known" in found.about["bound"]
    with pytest.raises(GridError, match="noise of the spectra is not known"):
        evaluate_model(bundle, data, augment=False, bound=BoundOptions("default"))


def test_the_bound_is_that_of_the_pixels_which_a_star_has(work, tmp_path):
    import h5py

    from anna_onnx.training.evaluation import BoundOptions, evaluate_model

    shutil.copy(work / "validation.h5", tmp_path / "gap.h5")
    with h5py.File(tmp_path / "gap.h5", "r+", locking=False) as file:
        file["flux"][:20, 200:] = np.nan
    bundle, options = Bundle.load(work / "model.onnx"), BoundOptions("default", fwhm=0.6)
    whole, gap = (
        evaluate_model(bundle, path, snr=(100, 100), bound=options).bound
        for path in (work / "validation.h5", tmp_path / "gap.h5")
    )
    assert (gap[:20] > whole[:20]).all()
    assert np.median(gap[:20, 2] / whole[:20, 2]) > 1.5  # of [Fe/H], with a fifth of the lines
    assert np.array_equal(gap[20:], whole[20:])


def test_a_test_that_cannot_be_made_is_one_line(work, tmp_path):
    from anna_onnx.training.evaluation import BoundOptions

    with TrainingSetWriter(tmp_path / "none.h5", Bundle.load(work / "model.onnx").sidecar.grid, ["teff"], ["K"], 0):
        pass
    anna("simulate", "-n", 5, "--range", "vsini=60:70", "-o", tmp_path / "far.h5", cwd=tmp_path)
    refused = {
        "none.h5: 0 spectra": (tmp_path / "none.h5",),
        "far.h5: no star lies within the ranges": (tmp_path / "far.h5",),
        "S/N 100 to 50 is no range": (work / "validation.h5", "--snr", 100, 50),
        "S/N nan to nan is no range": (work / "validation.h5", "--snr", "nan", "nan"),
        "a.b: cannot be written": (work / "validation.h5", "--no-bound", "--as-is", "-o", "a/b"),
    }
    (tmp_path / "a").write_text("a file")
    for problem, arguments in refused.items():
        done = anna("test", work / "model.onnx", *arguments, cwd=tmp_path, status=1)
        assert re.search(problem, done.stderr)
        assert done.stderr.count("\n") == 1
    for options in ({"fwhm": -1}, {"resolution": 0}, {"fwhm": 0.6, "resolution": 20000}):
        with pytest.raises(GridError):
            BoundOptions(**options)


def test_trends_are_stored_in_the_model_and_taken_out_when_asked(work, tmp_path):
    for name in ("model.onnx", "model.h5"):
        shutil.copy(work / name, tmp_path)
    refused = anna(
        "infer", "model.onnx", work / "validation.h5", "--correct-trends", command="anna-lite", cwd=tmp_path, status=1
    )
    assert "store-trends" in refused.stderr
    anna("test", "model.onnx", work / "validation.h5", "--store-trends", cwd=tmp_path)
    tables = []
    for words in ([], ["--correct-trends"]):
        done = anna("infer", "model.onnx", work / "validation.h5", *words, command="anna-lite", cwd=tmp_path)
        tables.append([float(row["teff"]) for row in csv.DictReader(done.stdout.splitlines())])
    trends = Bundle.load(tmp_path / "model.onnx").sidecar.trends
    teff = Bundle.load(tmp_path / "model.onnx").sidecar.labels[0]
    scaled = (np.array(tables[0]) - teff.low) / teff.span
    inside = np.clip(scaled, 0, 1)
    expected = scaled + np.polynomial.polynomial.polyval(inside, trends.coefficients[0]) - inside
    np.testing.assert_allclose(tables[1], expected * teff.span + teff.low, atol=0.05)


def test_an_untested_network_is_not_written_over_a_good_one(work, tmp_path):
    done = anna("export", work / "nothing", cwd=tmp_path, status=2)
    assert "nothing" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_starter_file_loads_and_is_not_overwritten(tmp_path):
    from anna_onnx import config

    anna("init", "params.toml", "--steps", 77, cwd=tmp_path)
    assert config.load(tmp_path / "params.toml").steps == 77
    refused = anna("init", "params.toml", cwd=tmp_path, status=1)
    assert "is there already" in refused.stderr


def test_without_a_data_set_a_model_is_tested_on_that_of_its_parameters(work, tmp_path):
    refused = anna("test", work / "model.onnx", cwd=tmp_path, status=1)
    assert "name no data.test" in refused.stderr
