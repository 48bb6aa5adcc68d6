"""Watching a run: charts, the time line, and where the time of a step goes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from anna_onnx.errors import MissingExtraError
from anna_onnx.labels import Label
from anna_onnx.training.network import Network


class Charts:
    """TensorBoard: costs in one chart, RMS per label, weights, the graph.

    Parameters
    ----------
    folder : Path
    first_step : int
        Where a resumed run goes on; what was charted beyond is hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("run.tensorboard", "train") from error
        purge = first_step + 1 if first_step else None
        # Two writers, one tag: TensorBoard then draws both curves into one chart.
        self.batch = SummaryWriter(str(folder / "batch"), purge_step=purge)
        self.validation = SummaryWriter(str(folder / "validation"), purge_step=purge)

    def draw_graph(self, network: Network, flux: Tensor) -> None:
        """Chart the network itself."""
        with warnings.catch_warnings():
            # TensorBoard traces in a way that torch is about to give up, and for one shape, as is meant.
            warnings.simplefilter("ignore")
            self.batch.add_graph(_Answer(network), flux)

    def add(self, row: Mapping[str, float], network: nn.Module) -> None:
        """Chart a look: a row of the history, and histograms of the weights."""
        step = int(row["step"])
        self.batch.add_scalar("cost", row["batch_cost"], step)
        self.batch.add_scalar("learning_rate", row["learning_rate"], step)
        if "validation_cost" in row:
            self.validation.add_scalar("cost", row["validation_cost"], step)
        for name, value in row.items():
            if name.startswith("rms_"):
                self.validation.add_scalar(f"rms/{name.removeprefix('rms_')}", value, step)
        for name, parameter in network.named_parameters():
            self.batch.add_histogram(f"weights/{name}", parameter.detach(), step)

    def close(self) -> None:
        """Write what is left."""
        self.batch.close()
        self.validation.close()


class _Answer(nn.Module):
    """The network with one output: TensorBoard's tracer takes no optional ones."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, flux: Tensor) -> Tensor:
        return self.network.combine(flux)[0]


class Stopwatch:
    """Where the time of a step goes: measured at some steps, so that measuring costs nothing.

    On a GPU a measured part waits for its work to be done.
    """

    EVERY = 25

    def __init__(self, device: torch.device, tracing: bool = False) -> None:
        self.device, self.tracing = device, tracing
        self.seconds: dict[str, float] = {}
        self.active = False

    def begin_step(self, step: int) -> None:
        """Decide whether this step is measured; the first ones warm caches and are not."""
        self.active = step % self.EVERY == self.EVERY - 1

    def measure(self, part: str) -> AbstractContextManager[None]:
        """Measure one part of the step, and name it in the trace."""
        return self._measured(part) if self.active or self.tracing else nullcontext()

    @contextmanager
    def _measured(self, part: str) -> Iterator[None]:
        with torch.profiler.record_function(part):
            start = self._now()
            yield
            if self.active:
                self.seconds[part] = self.seconds.get(part, 0.0) + self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def shares(self) -> dict[str, float]:
        """Return the fraction of a step that each part takes."""
        total = sum(self.seconds.values())
        return {part: seconds / total for part, seconds in self.seconds.items()} if total else {}


class Trace:
    """A Chrome trace (chrome://tracing, ui.perfetto.dev) of ten steps, when asked for.

    Parameters
    ----------
    path : Path or None
        Where to; None: no trace.
    device : torch.device
    """

    WARM_UP, STEPS = 20, 10

    def __init__(self, path: Path | None, device: torch.device) -> None:
        self._stack = ExitStack()
        self._profiler: Any = None
        if path is None:
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=self.WARM_UP - 2, warmup=2, active=self.STEPS, repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
        )

    def __enter__(self) -> Self:
        if self._profiler is not None:
            self._stack.enter_context(self._profiler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def step(self) -> None:
        """Say that a step is over."""
        if self._profiler is not None:
            self._profiler.step()


class Note:
    """The remark beside the progress bar, a new one ten times a second.

    Parameters
    ----------
    labels : tuple of Label
    first_step : int

    Attributes
    ----------
    row : mapping or None
        The last look at the validation set.
    """

    EVERY = 0.1  # seconds

    def __init__(self, labels: tuple[Label, ...], first_step: int) -> None:
        self.labels, self.first_step = labels, first_step
        self.row: Mapping[str, float] | None = None
        self._start = time.perf_counter()
        self._due = self._start
        self._text = ""

    def text(self, step: int, steps: int, batch_size: int) -> str:
        """Return cost, RMS of each label in its unit, spectra/s and the time left."""
        now = time.perf_counter()
        if now >= self._due:
            self._due = now + self.EVERY
            self._text = self._describe(step, steps, batch_size, now - self._start)
        return self._text

    def _describe(self, step: int, steps: int, batch_size: int, seconds: float) -> str:
        rate = (step - self.first_step) / max(seconds, 1e-9)
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


def _short(unit: str) -> str:
    return "" if unit.startswith("dex") else unit.replace(" ", "")
