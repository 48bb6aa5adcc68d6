"""The learning-rate range test: a curve with a suggestion that trains."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner

from anna_onnx.training.loop import train
from anna_onnx.training.ratetest import RateTest, find_rate
from anna_onnx_cli.anna import main


def test_the_suggestion_is_where_the_cost_falls_the_most():
    rate = np.geomspace(1e-7, 1, 200)
    cost = 1 - 0.9 / (1 + (1e-3 / rate) ** 2) + (rate / 0.1) ** 4
    assert RateTest(rate, cost).suggested == pytest.approx(1e-3, rel=0.3)


def test_the_test_ends_where_the_cost_blows_up(toy):
    curve = find_rate(toy(), steps=100, say=lambda text: None)
    assert curve.rate[0] == pytest.approx(1e-7)
    assert curve.cost.max() <= 3 * curve.cost[0]
    assert 1e-4 < curve.suggested < 0.3


def test_a_run_at_the_suggested_rate_learns(toy):
    rate = find_rate(toy(), steps=100, say=lambda text: None).suggested
    settings = toy(stage={"learning_rate": rate, "steps": 150}, validation={"interval": 50})
    rows = train(settings, say=lambda text: None).read_history()
    assert rows[-1]["validation_cost"] < 0.5 * rows[0]["validation_cost"]


def test_the_gradient_is_clipped_as_in_the_training(toy):
    # Adam does not feel the size of the gradient but where it competes with its epsilon of 1e-8.
    free, clipped = (
        find_rate(toy(stage={"gradient_clip": clip}), steps=60, say=lambda text: None).cost.min()
        for clip in (1e6, 1e-9)
    )
    assert clipped > 1.1 * free


def test_the_rate_is_not_measured_on_a_run(toy):
    result = CliRunner().invoke(main, ["train", str(toy().path), "--find-lr", "--resume"])
    assert "--find-lr tries a throw-away network: it goes without --resume" in result.output


@pytest.mark.filterwarnings("error")
def test_the_command_writes_curve_and_plot(toy, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(toy.folder)
    result = CliRunner().invoke(main, ["train", str(toy().path), "--find-lr"])
    assert result.exit_code == 0, result.output
    assert "the cost falls the steepest at a learning rate of" in result.output
    assert [line[:9] for line in result.stdout.splitlines()] == ["the cost ", "find_lr.c"]
    assert (toy.folder / "find_lr.png").read_bytes()[1:4] == b"PNG"
    assert (toy.folder / "find_lr.csv").read_text().splitlines()[0] == "learning_rate,cost"
    assert not (toy.folder / "runs").exists()
