"""The learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3): which rate to train at."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from anna_onnx import config
from anna_onnx.arrays import FloatArray
from anna_onnx.errors import MissingExtraError, TrainingError
from anna_onnx.files import replacing
from anna_onnx.progress import Progress, silent
from anna_onnx.training import compute
from anna_onnx.training.batches import Batches
from anna_onnx.training.loop import build_network
from anna_onnx.training.optimization import cost_of, make_optimizer
from anna_onnx.training.process import joined
from anna_onnx.training.task import prepare_task

LOWEST, HIGHEST = 1e-7, 1.0
SMOOTHING = 0.9
BLOWN_UP = 3.0  # times the first cost: the rate is too large by far


@dataclass(frozen=True, eq=False)
class RateTest:
    """Costs of a training whose learning rate grows at every step.

    Attributes
    ----------
    rate, cost : arrays, shape (n_step,)
        The cost is smoothed.
    """

    rate: FloatArray
    cost: FloatArray

    @property
    def suggested(self) -> float:
        """The rate at which the cost falls the most over a decade, of those before its least value."""
        decade = np.log10(self.rate)
        middle = decade[: max(int(np.argmin(self.cost)), 2) + 1]
        before, after = (np.interp(middle + shift, decade, self.cost) for shift in (-0.5, 0.5))
        return float(10 ** middle[int(np.argmin(after - before))])

    def write(self, path: Path) -> None:
        """Write the curve as CSV."""
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["learning_rate", "cost"])
            writer.writerows(zip(self.rate.tolist(), self.cost.tolist(), strict=True))

    def plot(self, path: Path) -> None:
        """Plot the curve.

        Raises
        ------
        MissingExtraError
            Without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("the plot of 'anna train --find-lr'", "plot") from error
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.semilogx(self.rate, self.cost)
        axes.axvline(self.suggested, linestyle="--", label=f"steepest: {self.suggested:.1e}")
        axes.set(xlabel="learning rate", ylabel="cost of a batch, smoothed")
        axes.legend()
        image = io.BytesIO()
        figure.savefig(image, format=path.suffix[1:] or "png", dpi=110)
        with replacing(path) as partial:
            partial.write_bytes(image.getvalue())


def find_rate(
    settings: config.Config, steps: int = 200, progress: Progress = silent, say: Callable[[str], None] = print
) -> RateTest:
    """Train a throw-away network at rates from 1e-7 to 1, until its cost blows up.

    Parameters
    ----------
    settings : config.Config
        Of the first stage everything but the learning rate, its schedule, steps and the average of weights is used.
    steps : int
    progress, say
        See `anna_onnx.training.loop.train`.

    Raises
    ------
    TrainingError
        If the cost is no number from the start.
    """
    chosen = compute.choose(settings, say)
    rates = np.geomspace(LOWEST, HIGHEST, steps)
    costs: list[float] = []
    with joined(settings.run, chosen.device) as process:
        task = prepare_task(settings, process.device)
        network = build_network(settings, task).to(process.device).train()
        optimizer = make_optimizer(network, settings.stage[0], process.device)
        stage = dataclasses.replace(settings.stage[0], steps=steps)
        batches = Batches(task.source, task.augmentation, [stage], settings.seed)
        mean = 0.0
        for step in range(steps):
            batch = batches[step].to(process.device)
            optimizer.param_groups[0]["lr"] = float(rates[step])
            with compute.autocast(process.device, chosen.precision):
                answer, spread = network(batch.flux)
                cost = cost_of(answer, spread, batch.scaled, batch.weight)
            optimizer.zero_grad(set_to_none=True)
            cost.backward()
            if stage.gradient_clip:
                nn.utils.clip_grad_norm_(network.parameters(), stage.gradient_clip)
            optimizer.step()
            mean = SMOOTHING * mean + (1 - SMOOTHING) * float(cost.detach())
            smooth = mean / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(smooth) or (costs and smooth > costs[0] + (BLOWN_UP - 1) * abs(costs[0])):
                break
            costs.append(smooth)
            progress(step + 1, steps, f"learning rate {rates[step]:.1e} | cost {smooth:.4g}")
    if len(costs) < 3:
        raise TrainingError(
            "the cost is no number from the first steps on: look for wild flux values in the training set"
        )
    return RateTest(rates[: len(costs)], np.array(costs))


def suggest_rate(settings: config.Config, progress: Progress = silent, say: Callable[[str], None] = print) -> list[str]:
    """Find a rate, write the curve as CSV and as a plot into the current folder, and return what to say of it."""
    curve = find_rate(settings, progress=progress, say=say)
    curve.write(Path("find_lr.csv"))
    curve.plot(Path("find_lr.png"))
    return [
        f"the cost falls the steepest at a learning rate of {curve.suggested:.1e}",
        "find_lr.csv, find_lr.png written",
    ]
