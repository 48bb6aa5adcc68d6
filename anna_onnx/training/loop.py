"""The training loop."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from anna_onnx import config
from anna_onnx.errors import StoppedError, TrainingError
from anna_onnx.progress import Progress, silent
from anna_onnx.training import compute
from anna_onnx.training.batches import BASIS, DROPOUT, WEIGHTS, Batch, Batches, generator
from anna_onnx.training.checkpoint import (
    RunDirectory,
    State,
    describe_run,
    explained,
    hash_file,
    part,
    restore_optimizer,
)
from anna_onnx.training.diagnosis import Diagnosis, inspect_spectra
from anna_onnx.training.examples import Examples
from anna_onnx.training.network import Network, activation_bytes, count_parameters
from anna_onnx.training.optimization import cost_of, evaluate, make_average, make_optimizer, rate_at, stage_of
from anna_onnx.training.process import Process, interruption, joined
from anna_onnx.training.task import Task, prepare_task
from anna_onnx.training.watch import Charts, Note, Stopwatch, Trace

COSTS_HELD = 50  # batches after which their costs are read from the device, which waits for it
N_BASIS = 2000  # spectra whose mean and spread standardise the input
Say = Callable[[str], None]
Row = dict[str, float]


def train(
    settings: config.Config,
    resume: RunDirectory | None = None,
    progress: Progress = silent,
    say: Say = print,
    look: Callable[[Row], None] | None = None,
    validation: Examples | None = None,
) -> RunDirectory:
    """Train a network.

    Parameters
    ----------
    settings : config.Config
        The parameters; of a run that is resumed: `RunDirectory.settings`.
    resume : RunDirectory, optional
        A run to go on with.
    progress : Progress
        Called after every step.
    say : callable
        Called with a line for a person to read.
    look : callable, optional
        Called with each row of the history; what it raises ends the training.
    validation : Examples, optional
        To validate on, in place of those that the parameters name.

    Returns
    -------
    RunDirectory
        With the best weights.

    Raises
    ------
    TrainingError
        If the run cannot start or go on.
    StoppedError
        At Ctrl-C or SIGTERM, after a checkpoint was saved.
    """
    if resume is not None:
        # What was chosen then holds on: another precision, or number of threads, would round differently.
        info = resume.read_info()
        choices = {"precision": info["precision"], "threads": info["hardware"]["threads"]}
        settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, **choices))
    chosen = compute.choose(settings, say)
    with (
        joined(settings.run, chosen.device) as process,
        interruption(process.leads) as interrupted,
        ExitStack() as held,
    ):
        task = prepare_task(settings, process.device)
        if validation is not None:
            task = dataclasses.replace(task, validation=validation)
        if resume is not None and process.leads:
            held.enter_context(resume.alone())
        trainer = Trainer(settings, task, process, chosen.precision, resume, say if process.leads else _say_nothing)
        if resume is None and process.leads:
            held.enter_context(trainer.directory.alone())
        try:
            trainer.note_status("running")
            trainer.run_all(interrupted, progress if process.leads else silent, look)
        except BaseException:
            with suppress(TrainingError):  # a full disk: what stopped the run says so
                trainer.note_status("stopped")
            raise
        return trainer.directory


def choose_run(params: str, resume: bool = False, run: str | None = None) -> tuple[config.Config, RunDirectory | None]:
    """Return the parameters to train with, and the run to go on with: none, for a new one.

    Parameters
    ----------
    params : str
        Parameter file.
    resume : bool
        Whether to go on with the newest run that it started.
    run : str, optional
        The run to go on with, whatever started it.
    """
    if run is None:
        settings = config.load(params)
        if not resume:
            return settings, None
        going_on = RunDirectory.newest(settings.resolve(settings.run.directory), settings.path)
    else:
        going_on = RunDirectory(run)
    return going_on.settings(), going_on


def _say_nothing(text: str) -> None:
    """Stand in for `say` in processes that do not lead."""


class Trainer:
    """A run: its network, optimiser, counters and directory."""

    def __init__(
        self,
        settings: config.Config,
        task: Task,
        process: Process,
        precision: torch.dtype,
        resume: RunDirectory | None,
        say: Say,
    ) -> None:
        self.settings, self.task, self.process, self.precision, self.say = settings, task, process, precision, say
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
        self.forward: Callable[[Tensor], tuple[Tensor, Tensor | None]] = process.share(self.network)
        if settings.run.compile:
            self.forward = compute.compiled(self.forward, self.device)
        self.stopwatch = Stopwatch(self.device, tracing=settings.run.trace)
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=self.state.loss_scale, enabled=precision == torch.float16
        )
        self.scaler.load_state_dict(self.scaler.state_dict() | {"_growth_tracker": self.state.loss_scale_steps})
        rows = self.directory.read_history() if process.leads else []
        self.diagnosis = Diagnosis(task, settings.steps, rows, self.state.advised)
        self.charts = None
        if settings.run.tensorboard and process.leads:
            with explained(self.directory.path / "tensorboard"):
                self.charts = Charts(self.directory.path / "tensorboard", self.state.step)

    def run_all(
        self, interrupted: Callable[[], bool], progress: Progress, look: Callable[[Row], None] | None = None
    ) -> None:
        """Train to the end of the last stage, or until it is stopped."""
        settings, state = self.settings, self.state
        self._say_what_starts()
        self.network.train()
        batches = Batches(
            self.task.source, self.task.augmentation, settings.stage, settings.seed,
            self.process.rank, self.process.world,
        )  # fmt: skip
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
                last = state.step == settings.steps
                if state.step % settings.validation.interval == 0 or last:
                    state.seconds = time.perf_counter() - started
                    note.row = self._look()
                    if look is not None:
                        look(note.row)
                if state.step % settings.run.checkpoint_interval == 0 or last or state.stopped_early:
                    state.seconds = time.perf_counter() - started
                    self._save()
                progress(state.step, settings.steps, note.text(state.step, settings.steps, self.stage.batch_size))
                trace.step()
                if interrupted():
                    self._save()
                    raise StoppedError(
                        f"stopped at step {state.step} of {settings.steps}; nothing is lost: "
                        f"go on with 'anna train --resume --run {self.directory.path}'"
                    )
        self._finish()

    def _take_step(self, batch: Batch) -> Tensor:
        """Forward, cost, backward, step."""
        stage = self.stage
        self._set_learning_rate()
        if stage.keep_probability < 1:
            # The masks are a function of seed and step too, so that a resumed run draws the same ones.
            counters = (DROPOUT, self.state.step, self.process.rank)
            torch.manual_seed(generator(torch.device("cpu"), self.settings.seed, *counters).initial_seed())
        with self.stopwatch.measure("forward"), compute.autocast(self.device, self.precision):
            mean, spread = self.forward(batch.flux)
            cost = cost_of(mean, spread, batch.scaled, batch.weight)
        with self.stopwatch.measure("backward"):
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(cost).backward()
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
        """Keep the cost of a batch."""
        self._costs.append(cost)
        if len(self._costs) == COSTS_HELD:
            self._settle_costs()

    def _settle_costs(self) -> None:
        """Add up the costs of the last batches, and stop a run that has diverged."""
        if not self._costs:
            return
        costs = torch.stack(self._costs).tolist()
        self._costs.clear()
        for i, cost in enumerate(costs, start=self.state.step - len(costs) + 1):
            self._require_number(cost, "cost", i)
            # One by one: the same sum wherever a run was interrupted.
            self.state.cost_sum += cost
        self.state.cost_count += len(costs)

    def _require_number(self, cost: float, name: str, step: int) -> None:
        if not math.isfinite(cost):
            raise TrainingError(
                f"the {name} is no longer a number at step {step}: the run diverged. "
                "Lower stage.learning_rate, add stage.warmup or stage.gradient_clip, look for wild flux values; "
                f"the run is kept in {self.directory.path}"
            )

    def _look(self) -> Row:
        """Look at the validation set: log it, keep the best weights, perhaps stop."""
        row = self._measure()
        self._judge(self.process.agree(row.get("validation_cost", row["batch_cost"])))
        if self.process.leads:
            self._log(row)
        self.network.train()
        return row

    def _measure(self) -> Row:
        """Return a row of the history: costs, the RMS error of each label, learning rate and time."""
        state = self.state
        self._settle_costs()
        # Costs of batches are summed over the members of an ensemble; a mean, as of the validation set, is logged.
        batch_cost = self.process.mean(state.cost_sum / max(state.cost_count, 1)) / self.settings.network.members
        row: Row = {"step": state.step, "batch_cost": batch_cost}
        state.cost_sum, state.cost_count = 0.0, 0
        if self.task.validation is not None:
            cost, rms = evaluate(self.watched, self.task.validation, self.task.labels)
            self._require_number(cost, "validation cost", state.step)
            row["validation_cost"] = cost
            row |= {f"rms_{label.name}": value for label, value in zip(self.task.labels, rms, strict=True)}
        row["learning_rate"] = self.learning_rate
        row["seconds"] = round(state.seconds, 3)
        return row

    def _judge(self, cost: float) -> None:
        """Keep the best weights; after looks without gain lower the learning rate, or stop."""
        state = self.state
        if cost < state.best_cost:
            state.best_cost, state.best_step, state.looks_without_gain = cost, state.step, 0
            if self.process.leads:
                self.directory.save_best(self.watched.state_dict(), state)
        else:
            state.looks_without_gain += 1
            if self.stage.schedule == "plateau" and state.looks_without_gain % 5 == 0:
                state.rate_factor *= 0.5
        patience = self.settings.validation.patience
        if patience and state.looks_without_gain >= patience:
            state.stopped_early = True

    def _log(self, row: Row) -> None:
        """Write a row of the history, charts, and what seems wrong."""
        self.directory.append_history(row)
        for advice in self.diagnosis.look(row, self.watched):
            self._advise(advice)
        self.state.advised = sorted(self.diagnosis.given)
        if self.charts is not None:
            with explained(self.directory.path / "tensorboard"):
                self.charts.add(row, self.network)

    def _advise(self, advice: str) -> None:
        """Say what seems wrong, and keep it with the run."""
        self.say(f"note: {advice}")
        self.directory.append_line("advice.txt", f"step {self.state.step}: {advice}")

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
        info = describe_run(self.settings.seed, self.task.labels, self.task.files, self.device)
        info["folder"] = str(self.settings.path.parent.resolve())
        info["params"] = self.settings.path.name
        info["precision"] = compute.name_of(self.precision)
        try:
            directory.write_text("params.toml", self.settings.text)
            directory.write_info(info)
        except TrainingError:
            shutil.rmtree(directory.path, ignore_errors=True)
            raise
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
            if self.process.leads:
                self.directory.forget_after(-1)
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
            self.directory.forget_after(self.state.step)

    def _save(self) -> None:
        self._settle_costs()
        if self.scaler.is_enabled():
            scaling = self.scaler.state_dict()
            self.state.loss_scale, self.state.loss_scale_steps = scaling["scale"], scaling["_growth_tracker"]
        if self.process.leads:
            extra = {} if self.average is None else self.average.state_dict()
            self.directory.save_checkpoint(self.network, self.optimizer, self.state, extra)

    def note_status(self, status: str) -> None:
        """Keep in run.json how the run stands."""
        if self.process.leads:
            self.directory.write_info(self.directory.read_info() | {"status": status})

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
            "parameters": count_parameters(self.network),
        }
        if shares or "time_per_part" not in info:
            info["time_per_part"] = {name: round(share, 4) for name, share in shares.items()}
        self.directory.write_info(info)
        if state.stopped_early:
            looks = self.settings.validation.patience
            self.say(f"stopped early: no better in {looks} looks since step {state.best_step}")
        if shares:
            self.say("time of a step: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
        self.say(f"best weights: step {state.best_step}, cost {state.best_cost:.5g}")

    def _say_what_starts(self) -> None:
        n = count_parameters(self.network)
        flux = self.task.source.draw(0, 2).flux.to(self.device)
        # Weights, gradients and the two moments of Adam, and what the backward pass needs of the forward one.
        memory = 16 * n + activation_bytes(self.network, flux) * self.stage.batch_size / self.process.world
        members = self.settings.network.members
        self.say(
            f"{f'{members} x ' if members > 1 else ''}{self.settings.network.architecture}: {n:,} weights, "
            f"{4 * n / 1e6:.1f} MB exported, {memory / 1e6:.0f} MB while training; {self.process}, "
            f"{compute.name_of(self.precision)}; run {self.directory.path}"
        )
        if self.state.step:
            self.say(f"going on at step {self.state.step}")
            return
        if self.process.leads:
            for advice in inspect_spectra(self.task):
                self._advise(advice)
        if self.charts is not None:
            self.charts.draw_graph(self.network.eval(), flux)


def build_network(settings: config.Config, task: Task) -> Network:
    """Make the network with fresh weights, standardised for the training spectra as augmented."""
    torch.manual_seed(generator(torch.device("cpu"), settings.seed, WEIGHTS).initial_seed())
    network = Network(task.grid.n_pixel, len(task.labels), settings.network)
    network.set_keep_probability(settings.stage[0].keep_probability)
    if settings.network.standardize:
        drawn = task.source.draw(0, N_BASIS)
        random = generator(drawn.flux.device, settings.seed, BASIS)
        flux = drawn.augmented(task.augmentation, random).flux.cpu()
        network.fit(flux, task.source.at_rest(N_BASIS).cpu(), torch.as_tensor(task.grid.wavelength))
    return network
