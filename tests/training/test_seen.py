"""What a model says of its training is what the training sets were like, whatever it was validated on."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs the extra 'train'")

from anna_onnx.continuum import Normalization
from anna_onnx.labels import Label
from anna_onnx.legacy import open_training_set
from anna_onnx.preparation import Preparation
from anna_onnx.spectrum import Spectrum
from anna_onnx.training import emulation
from anna_onnx.training.calibration_set import calibration_examples, calibration_set
from anna_onnx.training.export import export
from anna_onnx.training.loop import train
from anna_onnx.training.seen import describe_preparation, without_pixels
from anna_onnx.training.task import load_augmentation

LABELS = (Label("teff", 3000, 6000), Label("logg", 1, 5))


def described(settings):
    """Return the preparation that a run with these parameters leads to."""
    spectra, _ = calibration_set(settings)
    return describe_preparation(
        settings, LABELS, spectra, load_augmentation(settings, spectra.grid, torch.device("cpu"))
    )


def state(path, **attributes):
    """Write attributes into a training set."""
    with h5py.File(path, "r+", locking=False) as file:
        file.attrs.update(attributes)


def chips(n, gap=slice(20, 24)):
    """Return the mask of spectra with a gap between two chips."""
    mask = np.zeros((n, 48), dtype=np.uint8)
    mask[:, gap] = 1
    return mask


def test_spectra_are_prepared_as_those_of_the_training_set(toy):
    grid = open_training_set(toy.folder / "train.h5").grid
    packed = Preparation(grid, normalize=Normalization.parse("spline:3", ()), resolution=9000.0, min_coverage=0.6)
    state(toy.folder / "train.h5", preparation=json.dumps(packed.to_dict()))
    state(toy.folder / "valid.h5", preparation=json.dumps(Preparation(grid, resolution=100.0).to_dict()))
    found = described(toy())
    assert (found.normalize, found.resolution, found.min_coverage) == (packed.normalize, 9000, 0.6)


def test_what_the_training_set_does_not_say_the_validation_set_may(toy):
    grid = open_training_set(toy.folder / "train.h5").grid
    packed = Preparation(grid, normalize=Normalization.parse("spline:3", ()), resolution=9000.0)
    state(toy.folder / "valid.h5", preparation=json.dumps(packed.to_dict()))
    assert described(toy()).normalize == packed.normalize


def test_the_resolving_power_is_that_of_the_training_set(toy):
    state(toy.folder / "valid.h5", resolution=500.0)
    assert described(toy()).resolution == 500
    state(toy.folder / "train.h5", fwhm=0.5)
    assert described(toy()).resolution == pytest.approx(5004.7 / 0.5)
    state(toy.folder / "train.h5", fwhm=0.0)  # spectra without an instrument
    assert described(toy()).resolution is None


def test_velocities_are_those_of_the_training_set_and_else_of_the_validation_set(toy):
    velocity = np.linspace(20, 30, 50)
    velocity[3] = np.nan
    toy.write("valid.h5", n=50, aux={"rv": velocity})
    assert described(toy()).velocity_range == (20, 30)
    toy.write("train.h5", n=200, aux={"rv": np.linspace(-100, 100, 200), "dummy": np.arange(200.0)})
    assert described(toy()).velocity_range == (-100, 100)
    assert described(toy(augmentation={"radial_velocity": [-5, 10]})).velocity_range == (-105, 110)
    data = {"train": "train.h5", "validation": "valid.h5", "radial_velocity_column": "dummy"}
    assert described(toy(data=data)).velocity_range == (0, 199)


def test_velocities_that_nobody_knows_are_none(toy):
    assert described(toy()).velocity_range is None


@pytest.mark.parametrize(
    ("augmentation", "coverage"),
    [
        ({}, 0.99),
        ({"gaps": [0.0, 0.3]}, 0.7),
        ({"gaps": [0.0, 0.25], "missing_pixels": [0.0, 0.25]}, 0.5),
        ({"gaps": [0.0, 0.1], "coverage": [0.4, 1.0]}, 0.4),
    ],
)
def test_training_with_missing_pixels_asks_for_less_coverage(toy, augmentation, coverage):
    assert described(toy(augmentation=augmentation)).min_coverage == pytest.approx(coverage)


def test_the_snr_of_a_training_is_that_of_a_median_pixel(toy):
    (toy.folder / "half.template").write_text("4000 0.3\n6000 0.3\n", encoding="utf-8")
    settings = toy(augmentation={"snr": [50, 200], "snr_template": "half.template"})
    assert described(settings).snr_range == pytest.approx((15, 60))


def test_pixels_that_only_the_validation_set_lacks_were_seen(toy):
    toy.write("valid.h5", n=50, mask=chips(50))
    assert described(toy()).unseen == ()


@pytest.mark.parametrize("n", [1, 3])
def test_few_validation_spectra_that_are_cut_short_leave_no_pixel_unseen(toy, n):
    toy.write("valid.h5", n=n)
    assert described(toy(augmentation={"coverage": [0.05, 0.3]})).unseen == ()


def test_a_region_that_training_never_had_does_not_count_in_what_is_inferred(toy, monkeypatch):
    monkeypatch.setattr(emulation, "STEPS", 20)
    mask = chips(200)
    mask[7] = 1  # a spectrum without a good pixel
    toy.write("train.h5", n=200, mask=mask)
    truth = open_training_set(toy.folder / "valid.h5")
    labels, wild = truth.labels.copy(), np.array(truth.flux, dtype=float)
    labels[:30, 1] = np.nan
    wild[:, 20:24], wild[:, 40] = 0.3, 5.0  # the validation set has the region, and nothing good in it
    toy.write("valid.h5", labels=labels, flux=wild)
    bad = {"mask": [[5004.0, 5004.5]], "bad_columns": [40]}
    run = train(toy(stage={"steps": 2}, augmentation=bad), say=lambda text: None)
    bundle = export(run, toy.folder / "model.onnx", say=lambda text: None)
    assert bundle.sidecar.preparation.unseen == ((20, 23), (40, 40))
    one, other = (
        bundle.infer([Spectrum(truth.grid.wavelength, row, medium="air", frame="rest") for row in flux[:5]])
        for flux in (wild, truth.flux)
    )
    assert np.array_equal(one["teff"], other["teff"])
    assert np.all(one["coverage"] == 1)
    # The truths that are not known are not missed.
    metrics = bundle.sidecar.provenance["metrics"]
    assert metrics["logg"]["coverage_68"] == pytest.approx(0.68, abs=0.05)


def test_errors_are_calibrated_without_the_pixels_that_training_never_had(toy):
    toy.write("train.h5", n=200, mask=chips(200))
    settings = toy(augmentation={"bad_columns": [40]})
    unseen = described(settings).unseen
    spectra, _ = calibration_set(settings)
    missing = calibration_examples(without_pixels(settings, unseen), spectra, LABELS).flux.isnan()
    assert missing.all(dim=0).nonzero().flatten().tolist() == [20, 21, 22, 23, 40]
