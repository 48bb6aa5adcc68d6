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

PARAMS = """
seed = 1
[data]
train = "train.h5"
validation = "valid.h5"
[network]
kernel = 5
filters = 2
fc1 = 16
fc2 = 16
[augmentation]
snr = [100, 200]
continuum_offset = [-0.01, 0.01]
[[stage]]
learning_rate = 3e-3
steps = 60
batch_size = 20
[validation]
interval = 10
[run]
tensorboard = false
threads = 1
checkpoint_interval = 20
"""


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


@pytest.fixture
def toy(tmp_path):
    """A folder with train.h5 and valid.h5; called with TOML, it returns the parameters with that in place."""
    write_set(tmp_path / "train.h5", 200, seed=1)
    write_set(tmp_path / "valid.h5", 50, seed=2)

    def settings(text: str = "", **replace: str) -> config.Config:
        """Return the parameters, lines of PARAMS replaced by name (None drops one), `text` added at the end."""
        lines = []
        for line in PARAMS.splitlines():
            name = line.split(" = ")[0]
            value = replace.pop(name, line.partition(" = ")[2])
            if value is not None:
                lines.append(f"{name} = {value}" if " = " in line else line)
        assert not replace
        whole = "\n".join(lines) + "\n" + text
        (tmp_path / "params.toml").write_text(whole, encoding="utf-8")
        return config.loads(whole, tmp_path / "params.toml")

    settings.folder = tmp_path
    return settings


@pytest.fixture
def make_set():
    return write_set


@pytest.fixture
def toy_labels():
    return draw_labels


@pytest.fixture
def toy_flux():
    return spectra_of
