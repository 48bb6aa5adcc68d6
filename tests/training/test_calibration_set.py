"""What errors are calibrated on, on toy stars of two lines."""

import json

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs the extra 'train'")

from anna_onnx.card import model_card
from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label
from anna_onnx.legacy import open_training_set
from anna_onnx.training import emulation
from anna_onnx.training.batches import FileSource
from anna_onnx.training.calibration_set import calibration_set, mixed
from anna_onnx.training.export import export
from anna_onnx.training.familiarity import clean_spectra
from anna_onnx.training.loop import train
from anna_onnx.training.task import held_out_set, prepare_task

LABELS = (Label("teff", 3000, 6000), Label("logg", 1, 5))
CPU = torch.device("cpu")


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


def test_labels_go_by_name_where_sets_have_them_in_another_order(toy):
    path, extra = toy.write("reversed.h5", n=200, seed=3), toy.write("extra.h5", n=200, seed=4)
    truth = {str(i + 1000): values for i, values in enumerate(open_training_set(path).labels)}
    with h5py.File(path, "r+") as file:
        file["labels"][:] = file["labels"][:][:, ::-1]
        file["labels"].attrs["names"] = ["logg", "teff"]
        file["labels"].attrs["units"] = ["dex(cm / s2)", "K"]
        file["id"][:] += 1000
    with h5py.File(extra, "r+") as file:
        labels, names = file["labels"][:], [*file["labels"].attrs["names"], "vsini"]
        del file["labels"]
        file["labels"] = np.column_stack([labels, labels[:, 0]])
        file["labels"].attrs.update({"names": names, "units": ["K", "dex", "km / s"]})
        file["id"][:] += 2000
    held_out = held_out_set(toy(data={"train": ["train.h5", "reversed.h5", "extra.h5"], "validation_size": 300}))
    assert held_out.label_names == ("teff", "logg")
    assert held_out.labels[:, 0].min() >= 3000
    assert held_out.labels[:, 1].max() <= 5
    found = {f"{star:.0f}": values for star, values in zip(held_out.id, held_out.labels, strict=True)}
    assert all(np.array_equal(found[star], truth[star]) for star in found.keys() & truth.keys())


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


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_errors_of_a_label_that_no_validation_spectrum_has_are_not_known(toy, toy_labels, monkeypatch):
    monkeypatch.setattr(emulation, "STEPS", 20)
    labels = toy_labels(50)
    flux = np.array(open_training_set(toy.folder / "valid.h5").flux)
    labels[:, 1] = np.nan
    toy.write("valid.h5", labels=labels, flux=flux)
    constant, own = (
        train(toy(stage={"steps": 2}, network={"uncertainty": uncertainty}), say=lambda text: None)
        for uncertainty in (False, True)
    )
    with pytest.raises(TrainingError, match=r"valid\.h5: no spectrum has a value of logg, needed for its error"):
        export(constant, toy.folder / "model.onnx", say=lambda text: None)
    bundle = export(own, toy.folder / "model.onnx", "float16", say=lambda text: None)
    about = bundle.sidecar.provenance
    json.dumps(about, allow_nan=False)
    assert set(about["metrics"]["logg"].values()) == {None}
    card = model_card(bundle)
    assert "nan" not in card
    assert "| dex | – | – | – | – | – |" in card
    assert about["metrics"]["teff"]["rms"] > 0
