"""What errors are calibrated on, and what a model is told of its training, on toy stars of two lines."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs the extra 'train'")

from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label
from anna_onnx.legacy import open_training_set
from anna_onnx.spectrum import Spectrum
from anna_onnx.training import emulation, frozen
from anna_onnx.training.batches import FileSource
from anna_onnx.training.calibration_set import calibration_examples, calibration_set, mixed
from anna_onnx.training.export import describe_preparation, export
from anna_onnx.training.familiarity import clean_spectra
from anna_onnx.training.loop import train
from anna_onnx.training.task import held_out_set, load_augmentation, prepare_task

LABELS = (Label("teff", 3000, 6000), Label("logg", 1, 5))
CPU = torch.device("cpu")


def described(settings):
    """Return the preparation that a run with these parameters leads to."""
    spectra, _ = calibration_set(settings)
    augmentation = load_augmentation(settings, spectra.grid, CPU)
    examples = calibration_examples(settings, spectra, LABELS)
    return describe_preparation(settings, spectra, augmentation, examples)


def test_a_region_that_training_never_had_does_not_count_in_what_is_inferred(toy, monkeypatch):
    monkeypatch.setattr(emulation, "STEPS", 20)
    truth = open_training_set(toy.folder / "valid.h5")
    labels = truth.labels.copy()
    labels[:30, 1] = np.nan
    chips = np.zeros((50, 48), dtype=np.uint8)
    chips[:, 20:24], chips[7] = 1, 1  # a gap between chips, and a spectrum without a good pixel
    toy.write("valid.h5", labels=labels, flux=np.array(truth.flux), mask=chips)
    bad = {"mask": [[5004.0, 5004.5]], "bad_columns": [40]}
    run = train(toy(stage={"steps": 2}, augmentation=bad), say=lambda text: None)
    bundle = export(run, toy.folder / "model.onnx", say=lambda text: None)
    assert bundle.sidecar.preparation.unseen == ((20, 23), (40, 40))
    wild = np.array(truth.flux[:5], dtype=float)
    wild[:, 20:24], wild[:, 40] = 0.3, 5.0
    one, other = (
        bundle.infer([Spectrum(truth.grid.wavelength, row, medium="air", frame="rest") for row in flux])
        for flux in (wild, truth.flux[:5])
    )
    assert np.array_equal(one["teff"], other["teff"])
    assert np.all(one["coverage"] == 1)
    # The truths that are not known are not missed.
    metrics = bundle.sidecar.provenance["metrics"]
    assert metrics["logg"]["coverage_68"] == pytest.approx(0.68, abs=0.05)


def test_spectra_that_were_split_off_come_before_the_test_set(toy):
    data = {"train": "train.h5", "test": "valid.h5"}
    assert calibration_set(toy(data=data))[1] == "test set"
    assert calibration_set(toy(data={**data, "validation_size": 40}))[1].startswith("spectra split off")


def test_of_a_sorted_set_with_several_spectra_a_star_both_halves_have_stars_of_every_kind(toy, toy_labels):
    labels = np.repeat(np.sort(toy_labels(200), axis=0), 3, axis=0)
    path = toy.write("sorted.h5", labels=labels, ids=np.repeat(np.arange(200), 3))
    stars = mixed(open_training_set(path), 300, seed=1)
    halves = np.split(stars.labels[:, 0], 2)
    assert [half.mean() for half in halves] == pytest.approx([labels[:, 0].mean()] * 2, abs=250)
    assert len(np.unique(stars.id)) == 100
    assert np.array_equal(stars.labels[:, 0], labels[(3 * stars.id).astype(int), 0])
    at_rest = FileSource([open_training_set(path)], np.arange(600), LABELS, 1).at_rest(50)
    assert at_rest.std(dim=0).max() > 0.1


def test_a_few_validation_spectra_are_those_of_the_whole_file(toy, toy_labels):
    toy.write("valid.h5", labels=np.sort(toy_labels(100), axis=0))
    settings = toy(data={"train": "train.h5", "validation": "valid.h5", "validation_size": 10})
    teff = prepare_task(settings, CPU).validation.scaled[:, 0]
    assert len(teff) == 10
    assert teff.max() - teff.min() > 0.8


def test_masks_come_along_when_only_some_sets_have_them(toy):
    mask = np.zeros((200, 48), dtype=np.uint8)
    mask[:, 5] = 1
    toy.write("masked.h5", n=200, seed=3, mask=mask)
    settings = toy(data={"train": ["masked.h5", "train.h5"], "validation_size": 100})
    held_out = held_out_set(settings)
    assert 20 < held_out.mask[:, 5].sum() < 80
    spectra, _ = calibration_set(settings)
    clean = clean_spectra(settings, spectra)["sharp"](None)
    assert np.isnan(clean[:, 5]).mean() == pytest.approx(held_out.mask[:, 5].mean(), abs=0.02)


def test_masked_residuals_are_missing_in_the_spectra_that_they_are_added_to(toy):
    mask = np.zeros((10, 48), dtype=np.uint8)
    mask[:, 7] = 1
    noise = np.random.default_rng(1).normal(0, 0.01, (10, 48))
    noise[:, 7] = 99
    toy.write("noise.h5", labels=np.full((10, 2), 4000.0), flux=noise, mask=mask)
    validation = prepare_task(toy(augmentation={"snr": [1e6, 1e6], "residuals": "noise.h5"}), CPU).validation
    assert torch.equal(validation.flux.isnan().any(dim=0).nonzero(), torch.tensor([[7]]))
    assert validation.snr.numpy() == pytest.approx(100, rel=0.5)


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


def test_velocities_are_those_that_training_knew(toy):
    velocity = np.linspace(20, 30, 50)
    velocity[3] = np.nan
    toy.write("valid.h5", n=50, aux={"rv": velocity})
    assert described(toy()).velocity_range == (20, 30)
    toy.write("valid.h5", n=50, aux={"dummy": np.arange(50.0)})
    assert described(toy()).velocity_range is None
    data = {"train": "train.h5", "validation": "valid.h5", "radial_velocity_column": "dummy"}
    assert described(toy(data=data)).velocity_range == (0, 49)


def test_spectra_without_an_instrument_have_no_resolving_power(toy):
    import h5py

    with h5py.File(toy.folder / "valid.h5", "r+", locking=False) as file:
        file.attrs["fwhm"] = 0.0
    assert described(toy()).resolution is None


def test_a_network_that_answers_with_nan_is_not_written(monkeypatch):
    answer = np.full((1, 2), np.nan, dtype=np.float32)
    monkeypatch.setattr(frozen, "Session", lambda bundle: SimpleNamespace(run_whole=lambda flux: [answer, answer]))

    def network(flux):
        return torch.ones(len(flux), 2), torch.ones(len(flux), 2)

    network.output_names = ["labels", "sigma"]
    bundle = SimpleNamespace(sidecar=SimpleNamespace(labels=LABELS))
    with pytest.raises(TrainingError, match="differs from torch by nan"):
        frozen.require_parity(network, bundle, SimpleNamespace(flux=torch.ones(100, 10)))
