"""Small training tasks that learn in a second: two lines whose depths are the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anna_onnx import config
from anna_onnx.resampling import Grid
from anna_onnx.trainingset import TrainingSetWriter

N_PIXEL = 48
GRID = Grid(np.linspace(5000.0, 5009.4, N_PIXEL))

PARAMS = {
    "data": {"train": "train.h5", "validation": "valid.h5"},
    "network": {"kernel": 5, "filters": 2, "fc1": 16, "fc2": 16},
    "augmentation": {"snr": [100, 200], "continuum_offset": [-0.01, 0.01]},
    "stage": [{"learning_rate": 1e-2, "steps": 60, "batch_size": 20}],
    "validation": {"interval": 10},
    "run": {"tensorboard": False, "threads": 1, "checkpoint_interval": 20},
}


def spectra_of(labels):
    """Return the flux of stars whose labels are 3000 + 3000 and 1 + 4 times the depths of two lines."""
    depth = (labels - np.array([3000.0, 1.0])) / np.array([3000.0, 4.0])
    lines = np.exp(-0.5 * ((GRID.wavelength - np.array([[5002.5], [5006.5]])) / 0.5) ** 2)
    return 1 - 0.8 * depth @ lines


def draw_labels(n, seed=1):
    return np.array([3000.0, 1.0]) + np.array([3000.0, 4.0]) * np.random.default_rng(seed).random((n, 2))


def write_set(path: Path, n=200, seed=1, labels=None, flux=None, ids=None, **columns) -> Path:
    """Write a training set of the toy stars; `columns` are sigma, mask and aux."""
    labels = draw_labels(n, seed) if labels is None else labels
    flux = spectra_of(labels) if flux is None else flux
    ids = np.arange(len(labels)) if ids is None else ids
    aux = columns.pop("aux", {})
    with TrainingSetWriter(
        path, GRID, ["teff", "logg"], ["K", "dex(cm / s2)"], len(labels),
        aux=dict.fromkeys(aux, "f8"), **dict.fromkeys(columns, True),
    ) as writer:  # fmt: skip
        writer.append(flux, labels, ids, aux=aux or None, **columns)
    return path


class Toy:
    """A folder with train.h5 and valid.h5, and the parameters to train on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("train.h5", n=200, seed=1)
        self.write("valid.h5", n=50, seed=2)

    def write(self, name: str, **content) -> Path:
        return write_set(self.folder / name, **content)

    def __call__(self, seed: int = 1, **change) -> config.Config:
        """Return the parameters; `change` adds to a table, or to the only stage; [data] is replaced; None drops one."""
        table = {"seed": seed, **PARAMS}
        for name, values in change.items():
            if values is None:
                del table[name]
            elif name == "stage" and isinstance(values, dict):
                table[name] = [PARAMS["stage"][0] | values]
            else:
                alone = isinstance(values, list) or name == "data" or "architecture" in values
                table[name] = values if alone else table.get(name, {}) | values
        path = self.folder / "params.toml"
        path.write_text(config.dumps(table), encoding="utf-8")
        return config.load(path)


@pytest.fixture
def toy(tmp_path):
    return Toy(tmp_path)


@pytest.fixture
def make_set():
    return write_set


@pytest.fixture
def toy_labels():
    return draw_labels


@pytest.fixture
def toy_flux():
    return spectra_of
