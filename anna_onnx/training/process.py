"""One training process among several (torchrun), or alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from torch import distributed, nn

from anna_onnx import config
from anna_onnx.cores import usable_cores
from anna_onnx.training.network import Network


@dataclass(frozen=True)
class Process:
    """This process.

    Attributes
    ----------
    device : torch.device
    rank, world : int
        Its number and how many there are.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def share(self, network: Network) -> nn.Module:
        """Return the network such that gradients are averaged over all processes."""
        if self.world == 1:
            return network
        return nn.parallel.DistributedDataParallel(network)

    def agree(self, value: float) -> float:
        """Return the leading process's value in all of them, so that all decide alike."""
        if self.world == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(box, src=0)
        return float(box)

    def mean(self, value: float) -> float:
        """Return the mean over all processes."""
        if self.world == 1:
            return value
        box = torch.tensor([value], device=self.device)
        distributed.all_reduce(box)
        return float(box) / self.world

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        n = torch.get_num_threads()
        threads = f", {n} thread{'s' if n > 1 else ''}" if self.device.type == "cpu" else ""
        return f"{name}{threads}" + (f", {self.world} processes" if self.world > 1 else "")


@contextmanager
def joined(settings: config.Run, device: torch.device) -> Iterator[Process]:
    """Join the other processes that torchrun started, if it did.

    Each takes its share of the cores, or the GPU of its number.
    """
    world = process_count()
    if device.type == "cuda" and world > 1:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    torch.set_num_threads(settings.threads or default_threads())
    if world == 1:
        yield Process(device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(device, distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()


def process_count() -> int:
    """Return how many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_leader() -> bool:
    """Whether this process talks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def default_threads() -> int:
    """Return OMP_NUM_THREADS where it is set, else all usable cores; of several processes, the share of each."""
    here = os.environ.get("LOCAL_WORLD_SIZE")
    given = os.environ.get("OMP_NUM_THREADS", "")
    # torchrun sets OMP_NUM_THREADS to 1 whatever the machine.
    if here is None and given.isdigit() and int(given) > 0:
        return int(given)
    return max(1, usable_cores() // int(here or 1))


@contextmanager
def interruption(leads: bool = True) -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM (Slurm's time limit) into a question to be asked between steps.

    So no step is cut in half. A second Ctrl-C interrupts at once. Processes that do not lead
    wait for the one that does: it saves, and torchrun then ends them.
    """
    asked = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = leads

    if threading.current_thread() is not threading.main_thread():  # only there signals arrive
        yield lambda: False
        return
    numbers = (signal.SIGINT, signal.SIGTERM) if leads else (signal.SIGINT,)
    before = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
