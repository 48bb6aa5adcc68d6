"""The training loop."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label
from anna_onnx.progress import Progress, silent
from anna_onnx.training.batches import BASIS, DROPOUT, WEIGHTS, Batch, Batches, generator
from anna_onnx.training.checkpoint import RunDirectory, State, describe_run, hash_file, part, restore_optimizer
from anna_onnx.training.network import Network, count_parameters
from anna_onnx.training.process import Process, joined
from anna_onnx.training.task import Examples, Task, prepare_task
from anna_onnx.training.watch import Charts, Stopwatch, Trace

Say = Callable[[str], None]


def train(
    settings: config.Config, resume: RunDirectory | None = None, report: Progress = silent, say: Say = print
) -> RunDirectory:
    """Train a network.

    Parameters
    ----------
    settings : config.Config
        The parameters; those of the run itself when it is resumed.
    resume : RunDirectory, optional
        A run to go on with.
    report : Progress
        Called after every step.
    say : callable
        Called with a line for a person to read.

    Returns
    -------
    RunDirectory
        With the best weights.

    Raises
    ------
    TrainingError
        If the run cannot start or go on.
    """
    with joined(settings.run) as process, interruption() as interrupted:
        task = prepare_task(settings, process.device)
        trainer = Trainer(settings, task, process, resume, say if process.leads else lambda text: None)
        trainer.run_all(interrupted, report if process.leads else silent)
        return trainer.directory


class Trainer:
    """A run: its network, optimiser, counters and directory."""

    def __init__(self, settings: config.Config, task: Task, process: Process, resume: RunDirectory | None, say: Say):
        self.settings, self.task, self.process, self.say = settings, task, process, say
        self.device = process.device
        self.network = build_network(settings, task).to(self.device)
        self.state = State()
        self.learning_rate = 0.0
        self._stage_step = 0
        self._costs: list[Tensor] = []
        self.stage = settings.stage[0]
        self.optimizer = make_optimizer(self.network, self.stage, self.device)
        self.average = make_average(self.network, self.stage)
        self.directory = resume or self._create_directory()
        if resume is not None:
            self._restore()
        self.forward = process.share(self.network)
        self.stopwatch = Stopwatch(self.device)
        self.precision = choose_precision(settings.run.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.charts = None
        if settings.run.tensorboard and process.leads:
            self.charts = Charts(self.directory.path / "tensorboard", self.state.step)

    def run_all(self, interrupted: Callable[[], bool], report: Progress) -> None:
        """Train to the end of the last stage, or until it is stopped."""
        settings, state = self.settings, self.state
        self._say_what_starts()
        batches = Batches(
            self.task.source,
            self.task.augmentation,
            settings.stage,
            settings.seed,
            self.process.rank,
            self.process.world,
        )
        loader = batches.loader(state.step, settings.loader, pin=self.device.type == "cuda")
        trace_path = self.directory.path / "trace.json" if settings.run.trace and self.process.leads else None
        started = time.perf_counter() - state.seconds
        note = Note(self.task.labels, state.step)
        with Trace(trace_path, self.device) as trace:
            while state.step < settings.steps and not state.stopped_early:
                self._enter_stage(state.step)
                self.stopwatch.begin_step(state.step)
                with self.stopwatch.measure("input"):
                    batch = next(loader).to(self.device)
                cost = self._take_step(batch)
                state.step += 1
                self._count(cost)
                if state.step % settings.validation.interval == 0 or state.step == settings.steps:
                    state.seconds = time.perf_counter() - started
                    note.row = self._look()
                if state.step % settings.run.checkpoint_interval == 0 or state.step == settings.steps:
                    state.seconds = time.perf_counter() - started
                    self._save()
                report(state.step, settings.steps, note.text(state.step, settings.steps, self.stage.batch_size))
                trace.step()
                if interrupted():
                    self._save()
                    raise TrainingError(
                        f"stopped at step {state.step} of {settings.steps}; nothing is lost: "
                        f"go on with 'anna train --resume {self.directory.path}'"
                    )
        self._finish()

    def _take_step(self, batch: Batch) -> Tensor:
        """Forward, loss, backward, step."""
        stage, state = self.stage, self.state
        self._set_learning_rate()
        self.network.train()
        if stage.keep_probability < 1:
            # The masks are a function of seed and step too, so that a resumed run draws the same ones.
            torch.manual_seed(generator(torch.device("cpu"), self.settings.seed, DROPOUT, state.step).initial_seed())
        with self.stopwatch.measure("forward"), torch.autocast(
            self.device.type, dtype=self.precision, enabled=self.precision != torch.float32
        ):  # fmt: skip
            mean, log_sigma = self.forward(batch.flux)
            cost = cost_of(mean, log_sigma, batch.scaled)
        with self.stopwatch.measure("backward"):
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(cost).backward()  # type: ignore[no-untyped-call]
        with self.stopwatch.measure("optimizer"):
            if stage.gradient_clip:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.network.parameters(), stage.gradient_clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.average is not None:
                self.average.update_parameters(self.network)
        return cost.detach()

    def _count(self, cost: Tensor) -> None:
        """Add the cost of a batch, and stop a run that has diverged."""
        self._costs.append(cost)
        if len(self._costs) >= 50 or self.device.type == "cpu":
            self._settle_costs()

    def _settle_costs(self) -> None:
        """Read the costs from the device, which waits for it: not after every step."""
        if not self._costs:
            return
        costs = torch.stack(self._costs).tolist()
        self._costs.clear()
        self.state.cost_sum += math.fsum(costs)
        self.state.cost_count += len(costs)
        if not math.isfinite(self.state.cost_sum):
            raise TrainingError(
                f"the cost is no number any more at step {self.state.step}: the run diverged. "
                "Lower stage.learning_rate, add stage.warmup or stage.gradient_clip, look for wild flux values; "
                f"the run is kept in {self.directory.path}"
            )

    def _look(self) -> dict[str, float]:
        """Look at the validation set: log it, keep the best weights, perhaps stop."""
        state = self.state
        self._settle_costs()
        row: dict[str, float] = {"step": state.step, "batch_cost": state.cost_sum / max(state.cost_count, 1)}
        state.cost_sum, state.cost_count = 0.0, 0
        watched = self.watched
        if self.task.validation is not None:
            cost, rms = evaluate(watched, self.task.validation, self.task.labels)
            row["validation_cost"] = cost
            row |= {f"rms_{label.name}": value for label, value in zip(self.task.labels, rms, strict=True)}
        row["learning_rate"] = self.learning_rate
        row["seconds"] = round(state.seconds, 3)
        cost = self.process.agree(row.get("validation_cost", row["batch_cost"]))
        if cost < state.best_cost:
            state.best_cost, state.best_step, state.looks_without_gain = cost, state.step, 0
            if self.process.leads:
                self.directory.save_best(watched.state_dict(), state)
        else:
            state.looks_without_gain += 1
            if self.stage.schedule == "plateau" and state.looks_without_gain % 5 == 0:
                state.rate_factor *= 0.5
        patience = self.settings.validation.patience
        if patience and state.looks_without_gain >= patience:
            state.stopped_early = True
        if self.process.leads:
            self.directory.append_history(row)
            if self.charts is not None:
                self.charts.add(row, self.network)
        return row

    @property
    def watched(self) -> Network:
        """The network whose weights count: the moving average where there is one."""
        network = self.network if self.average is None else self.average.module
        assert isinstance(network, Network)
        return network

    def _enter_stage(self, step: int) -> None:
        """Begin the stage that a step belongs to, with an optimiser of its own."""
        index, first = stage_of(self.settings.stage, step)
        self._stage_step = step - first
        if self.settings.stage[index] is self.stage and not (self._stage_step == 0 and index > 0):
            return
        self.stage = self.settings.stage[index]
        self.network.set_keep_probability(self.stage.keep_probability)
        if self._stage_step == 0:
            self.optimizer = make_optimizer(self.network, self.stage, self.device)
            self.average = make_average(self.network, self.stage)
            self.state.rate_factor = 1.0

    def _set_learning_rate(self) -> None:
        self.learning_rate = self.stage.learning_rate * rate_at(self.stage, self._stage_step) * self.state.rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

    def _create_directory(self) -> RunDirectory:
        """Make the run directory on the leading process; the others never write."""
        if not self.process.leads:
            return RunDirectory(Path(os.devnull))
        directory = RunDirectory.create(self.settings.resolve(self.settings.run.directory))
        directory.write_text("params.toml", self.settings.text)
        info = describe_run(self.settings.seed, self.task.labels, self.task.files, self.device)
        info["folder"] = str(self.settings.path.parent.resolve())
        info["status"] = "running"
        directory.write_info(info)
        return directory

    def _restore(self) -> None:
        """Go on where the checkpoint was written."""
        info = self.directory.read_info()
        for name, path in self.task.files.items():
            then = info["data"].get(name, {}).get("sha256")
            if then != hash_file(path):
                raise TrainingError(
                    f"{path}: not the file that the run {self.directory.path} began with; start a new run"
                )
        if not self.directory.has_checkpoint():
            self.directory.forget_history_after(0)
            return
        tensors, self.state = self.directory.load_checkpoint()
        if self.state.step:
            index, first = stage_of(self.settings.stage, self.state.step - 1)
            self.stage, self._stage_step = self.settings.stage[index], self.state.step - 1 - first
        self.network.load_state_dict(part(tensors, "network."))
        self.network.set_keep_probability(self.stage.keep_probability)
        self.optimizer = make_optimizer(self.network, self.stage, self.device)
        restore_optimizer(self.optimizer, tensors)
        self.average = make_average(self.network, self.stage)
        if self.average is not None:
            self.average.load_state_dict(part(tensors, "extra."))
        if self.process.leads:
            self.directory.forget_history_after(self.state.step)

    def _save(self) -> None:
        self._settle_costs()
        if self.process.leads:
            extra = {} if self.average is None else self.average.state_dict()
            self.directory.save_checkpoint(self.network, self.optimizer, self.state, extra)

    def _finish(self) -> None:
        """Write what the run came to."""
        if not self.process.leads:
            return
        if self.charts is not None:
            self.charts.close()
        state = self.state
        info = self.directory.read_info()
        shares = self.stopwatch.shares()
        info |= {
            "status": "stopped early" if state.stopped_early else "finished",
            "steps": state.step,
            "seconds": round(state.seconds, 1),
            "best_step": state.best_step,
            "best_cost": state.best_cost,
            "time_per_part": {name: round(share, 4) for name, share in shares.items()},
            "parameters": count_parameters(self.network),
        }
        self.directory.write_info(info)
        if state.stopped_early:
            looks = self.settings.validation.patience
            self.say(f"stopped early: no better in {looks} looks since step {state.best_step}")
        if shares:
            self.say("time of a step: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
        self.say(f"best weights: step {state.best_step}, cost {state.best_cost:.5g}")

    def _say_what_starts(self) -> None:
        n = count_parameters(self.network)
        self.say(
            f"{self.settings.network.architecture}: {n:,} weights, {4 * n / 1e6:.1f} MB exported, "
            f"{16 * n / 1e6:.0f} MB while training; {self.process}; {str(self.precision).removeprefix('torch.')}; "
            f"run {self.directory.path}"
        )
        if self.state.step:
            self.say(f"going on at step {self.state.step}")
        elif self.charts is not None:
            flux, _, _ = self.task.source.draw(0, 2)
            self.charts.draw_graph(self.network.eval(), flux)


def cost_of(mean: Tensor, log_sigma: Tensor | None, scaled: Tensor) -> Tensor:
    """Return the cost of a batch: mean over spectra of the sum over scaled labels.

    Without uncertainty the squared error (the manual sums it over the batch as well, a
    constant factor that Adam does not see), else minus the Gaussian log-likelihood.
    Labels that are not known (NaN) do not count. Members of an ensemble add up.

    Parameters
    ----------
    mean, log_sigma : Tensor, shape (member, batch, n_label)
    scaled : Tensor, shape (batch, n_label)
    """
    known = ~scaled.isnan()
    error = torch.where(known, mean - scaled, 0.0)
    if log_sigma is None:
        each = error**2
    else:
        each = torch.where(known, 0.5 * (error * (-log_sigma).exp()) ** 2 + log_sigma, 0.0)
    return each.sum() / scaled.shape[0]


@torch.no_grad()
def evaluate(network: Network, examples: Examples, labels: tuple[Label, ...]) -> tuple[float, list[float]]:
    """Return the cost, and the RMS error of each label in its unit."""
    network.eval()
    cost, squares, count = 0.0, torch.zeros(len(labels)), torch.zeros(len(labels))
    for flux, scaled in zip(torch.split(examples.flux, 500), torch.split(examples.scaled, 500), strict=True):
        mean, log_sigma = network(flux)
        cost += float(cost_of(mean, log_sigma, scaled)) / mean.shape[0] * len(scaled)
        error = (mean.mean(dim=0) - scaled).cpu()
        squares += error.nan_to_num().square().sum(dim=0)
        count += (~error.isnan()).sum(dim=0)
    span = torch.tensor([label.span for label in labels])
    rms = (squares / count.clamp(min=1)).sqrt() * span
    return cost / len(examples), rms.tolist()


def build_network(settings: config.Config, task: Task) -> Network:
    """Make the network with fresh weights, standardised for the training spectra as augmented."""
    torch.manual_seed(generator(torch.device("cpu"), settings.seed, WEIGHTS).initial_seed())
    network = Network(task.grid.n_pixel, len(task.labels), settings.network)
    network.set_keep_probability(settings.stage[0].keep_probability)
    if settings.network.standardize:
        flux, _, sigma = task.source.draw(0, 2000)
        random = generator(flux.device, settings.seed, BASIS)
        flux = task.augmentation(flux, random, sigma).flux.cpu()
        known = ~flux.isnan()
        n = known.sum(dim=0).clamp(min=1)
        mean = flux.nan_to_num().sum(dim=0) / n
        spread = ((torch.where(known, flux - mean, 0.0) ** 2).sum(dim=0) / n).sqrt()
        network.inputs.fit(torch.where(known.any(dim=0), mean, 1.0), spread)
    return network


def make_optimizer(network: nn.Module, stage: config.Stage, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimiser of a stage, fused where torch can: on these networks the unfused one costs a third more."""
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    decay = stage.weight_decay if stage.optimizer == "adamw" else 0.0
    return kind(network.parameters(), lr=stage.learning_rate, weight_decay=decay, fused=device.type in ("cpu", "cuda"))


def make_average(network: nn.Module, stage: config.Stage) -> AveragedModel | None:
    """Return an exponential moving average of the weights, if the stage asks for one."""
    if stage.average is None:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(stage.average), use_buffers=True)  # type: ignore[no-untyped-call]


def stage_of(stages: tuple[config.Stage, ...], step: int) -> tuple[int, int]:
    """Return the stage that a step belongs to, and the first step of that stage."""
    first = 0
    for index, stage in enumerate(stages):
        if step < first + stage.steps:
            return index, first
        first += stage.steps
    return len(stages) - 1, first - stages[-1].steps


def rate_at(stage: config.Stage, step: int) -> float:
    """Return the factor on the learning rate at a step of a stage."""
    if stage.schedule == "onecycle":
        return _one_cycle(step / stage.steps)
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    if stage.schedule == "cosine":
        return _cosine((step - stage.warmup) / max(stage.steps - stage.warmup, 1))
    return 1.0


def _one_cycle(done: float, rise: float = 0.3) -> float:
    """Rise from 1/25 to 1, then fall to nearly nothing (Smith & Topin 2018, arXiv:1708.07120)."""
    if done < rise:
        return 1 / 25 + (1 - 1 / 25) * _cosine(1 - done / rise)
    return _cosine((done - rise) / (1 - rise))


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of the forward pass.

    "auto" takes bfloat16 on a GPU that has units for it, float32 elsewhere: on
    CPUs without such units autocast is three times slower.
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


@dataclass
class Note:
    """The remark beside the progress bar."""

    labels: tuple[Label, ...]
    first_step: int
    row: Mapping[str, float] | None = None
    _start: float = 0.0

    def __post_init__(self) -> None:
        self._start = time.perf_counter()

    def text(self, step: int, steps: int, batch_size: int) -> str:
        """Return cost, RMS of each label in its unit, spectra/s and the time left."""
        rate = (step - self.first_step) / max(time.perf_counter() - self._start, 1e-9)
        left = (steps - step) / rate
        parts = [f"{rate * batch_size:.0f} spectra/s", f"{int(left) // 60}:{int(left) % 60:02d} left"]
        if self.row is not None:
            parts.insert(0, f"cost {self.row['batch_cost']:.4g}")
            rms = [
                f"{label.name} {self.row[f'rms_{label.name}']:.3g} {_short(label.unit)}".rstrip()
                for label in self.labels
                if f"rms_{label.name}" in self.row
            ]
            parts[1:1] = ["rms " + ", ".join(rms)] if rms else []
        return " | ".join(parts)


def _short(unit: str | None) -> str:
    return "" if unit is None or unit.startswith("dex") else unit.replace(" ", "")


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a question to be asked between steps, so that no step is cut in half.

    A second Ctrl-C interrupts at once.
    """
    asked = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
