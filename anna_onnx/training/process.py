"""One training process among several (torchrun), or alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from anna_onnx import config
from anna_onnx.errors import TrainingError
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

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{name}{threads}" + (f", {self.world} processes" if self.world > 1 else "")


@contextmanager
def joined(settings: config.Run) -> Iterator[Process]:
    """Join the other processes that torchrun started, if it did, and choose the device.

    Raises
    ------
    TrainingError
        If the device asked for is not there.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(settings.device)
    if device.type == "cuda" and world > 1:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    torch.set_num_threads(settings.threads or max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    if world == 1:
        yield Process(device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(device, distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """Return the device; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    TrainingError
        If the one asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    if not there[name]:
        raise TrainingError(f"run.device: {name} is not available on this machine; auto takes what there is")
    return torch.device(name)


def usable_cores() -> int:
    """Return how many cores this process may use (fewer than the machine has in Slurm and containers)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
