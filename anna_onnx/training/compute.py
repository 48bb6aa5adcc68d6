"""What to compute on: device and precision, chosen by a short measurement where there is a choice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.training.network import Network
from anna_onnx.training.optimization import cost_of, make_optimizer
from anna_onnx.training.process import process_count
from anna_onnx.training.task import shape_of

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WARM_UP, STEPS = 5, 20


@dataclass(frozen=True)
class Compute:
    """A device and the precision of the forward pass on it."""

    device: torch.device
    precision: torch.dtype

    def __str__(self) -> str:
        return f"{self.device.type} {name_of(self.precision)}"


def choose(settings: config.Config, say: Callable[[str], None]) -> Compute:
    """Return what the parameters name, and for "auto" what trains the fastest.

    Several processes do not measure, lest they choose differently: they take the first GPU
    kind that is there, with bfloat16 where it has units for that.

    Raises
    ------
    TrainingError
        If the device asked for is not there.
    """
    found = candidates(settings.run)
    if len(found) == 1 or process_count() > 1:
        return found[0]
    n_pixel, n_label = shape_of(settings)
    seconds = {one: step_seconds(one, settings, n_pixel, n_label) for one in found}
    best = min(seconds, key=seconds.__getitem__)
    measured = ", ".join(f"{one} {1e3 * value:.2f} ms" for one, value in seconds.items())
    say(f"chosen: {best} (a step takes: {measured})")
    return best


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return a context in which layers are computed in a precision, if it is another than float32."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def name_of(precision: torch.dtype) -> str:
    """Return the name of a precision, as the parameters spell it."""
    return str(precision).removeprefix("torch.")


def compiled(forward: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Compile a forward pass with torch.compile; on CUDA as graphs, each launched at once.

    The kernels of a small network take less time than starting them one by one does.
    All batches of a stage have one shape, as such graphs ask for.
    """
    return torch.compile(forward, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)


def candidates(settings: config.Run) -> list[Compute]:
    """Return all that the parameters allow and this machine has, the likely best first.

    Half precision stands for choice only where the hardware has units for it: elsewhere it is
    emulated, on processors three times slower.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if settings.device != "auto" and not there[settings.device]:
        raise TrainingError(f"run.device: {settings.device} is not available on this machine; auto takes what there is")
    kinds = [kind for kind, is_there in there.items() if is_there and settings.device in ("auto", kind)]
    found = []
    for kind in kinds:
        device = torch.device(kind)
        names = [settings.precision] if settings.precision != "auto" else _native_precisions(device)
        found += [Compute(device, PRECISIONS[name]) for name in names]
    return found


def _native_precisions(device: torch.device) -> list[str]:
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return ["bfloat16", "float32"]
    return ["float32"]


def step_seconds(compute: Compute, settings: config.Config, n_pixel: int, n_label: int) -> float:
    """Return how long a training step takes, from random spectra: the median of a few."""
    device, stage = compute.device, settings.stage[0]
    with torch.random.fork_rng():
        network = Network(n_pixel, n_label, settings.network).to(device)
        flux = torch.rand(stage.batch_size, n_pixel).to(device)
        scaled = torch.rand(stage.batch_size, n_label).to(device)
    optimizer = make_optimizer(network, stage, device)
    taken = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        with autocast(device, compute.precision):
            mean, spread = network(flux)
            cost = cost_of(mean, spread, scaled)
        optimizer.zero_grad(set_to_none=True)
        cost.backward()
        optimizer.step()
        cost.item()  # waits for the device
        taken.append(time.perf_counter() - start)
    return sorted(taken[WARM_UP:])[STEPS // 2]
