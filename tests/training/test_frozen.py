"""The network as it is exported answers as the one that was trained."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anna_onnx.errors import TrainingError
from anna_onnx.fit import COLUMNS
from anna_onnx.labels import Label
from anna_onnx.training import frozen

LABELS = (Label("teff", 3000, 6000), Label("logg", 1, 5))


def parity_of(monkeypatch, sigma, other_sigma, fits=False):
    """Return the difference from torch, whose network is as wrong as it says, of an onnxruntime that says otherwise."""
    fit = np.ones((100, len(COLUMNS)), dtype=np.float32)

    def answers(n, wrong):
        both = np.ones((n, 2), dtype=np.float32), np.full((n, 2), wrong, dtype=np.float32)
        return [*both, fit[:n]] if fits else [*both]

    def network(flux):
        return [torch.from_numpy(answer) for answer in answers(len(flux), sigma)]

    def run_whole(flux):
        return answers(len(flux), other_sigma)

    network.output_names = ["labels", "sigma", "fit"][: 2 + fits]
    bundle = SimpleNamespace(sidecar=SimpleNamespace(labels=LABELS))
    monkeypatch.setattr(frozen, "Session", lambda bundle: SimpleNamespace(run_whole=run_whole))
    return frozen.require_parity(network, bundle, SimpleNamespace(flux=torch.ones(100, 10)))


def test_a_network_that_answers_with_nan_is_not_written(monkeypatch):
    with pytest.raises(TrainingError, match="differs from torch by nan"):
        parity_of(monkeypatch, 1.0, np.nan)


def test_onnxruntime_may_differ_by_a_small_part_of_a_range_and_of_an_answer_beyond_it(monkeypatch):
    span = LABELS[1].span
    assert parity_of(monkeypatch, 10 * span, 10 * span * (1 + 5e-6)) == pytest.approx(5e-6, rel=0.05)
    for sigma in (10 * span, 0.1 * span):
        with pytest.raises(TrainingError, match=r"differs from torch by 2\.0e-05"):
            parity_of(monkeypatch, sigma, sigma + 2e-5 * max(sigma, span))


def test_a_sigma_that_follows_the_fit_may_differ_as_the_fit_may(monkeypatch):
    span = LABELS[1].span
    assert parity_of(monkeypatch, 0.9 * span, 0.9 * span * 1.005, fits=True) < frozen.PARITY
    with pytest.raises(TrainingError, match="differs from torch by"):
        parity_of(monkeypatch, 0.9 * span, 0.9 * span * 1.02, fits=True)
