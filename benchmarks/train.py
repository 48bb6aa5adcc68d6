"""How fast ``anna train`` is, as ratios taken in one run.

    python benchmarks/train.py [--json] [--steps N] [--gigabytes 8]

``<network>_over_bare``: steps/s of `anna train` with noise, continuum and radial
velocity on, over those of a bare loop (spectra in memory, no augmentation,
fused Adam) of the same network. The machine may be busy: both take turns of
25 steps (so that the batches made ahead hardly count), and the ratio is the
median of those of a turn to the two beside it.

``larger_than_memory_over_in_memory``: the rate from a file that may not be
held in memory, over the rate from a small file that is, taken in turns as well.
``peak_private_mb``: the private memory of a process that trains from the large file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from anna_onnx import config
from anna_onnx.resampling import Grid
from anna_onnx.training.loop import build_network, train
from anna_onnx.training.optimization import cost_of, make_optimizer
from anna_onnx.training.task import prepare_task
from anna_onnx.trainingset import TrainingSetWriter

CPU = torch.device("cpu")
TURN = 25  # steps
GRID = Grid(np.linspace(6625.0, 6825.0, 1001))
NETWORKS = {
    "anna128": {"fc1": 128, "fc2": 128},
    "anna512": {"fc1": 512, "fc2": 512},
    "compact": {"architecture": "compact"},
}
AUGMENTATION = {"snr": [175, 250], "continuum_offset": [-0.01, 0.01], "radial_velocity": [-50, 50]}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    arguments.add_argument("--steps", type=int, default=500, help="of the fast networks; the compact one takes a fifth")
    arguments.add_argument("--gigabytes", type=float, default=8.0, help="of the large training set")
    arguments.add_argument("--only", help="of the ratios, those whose name begins so")
    arguments.add_argument("--memory-child", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.memory_child:
        print(json.dumps(train_and_watch_memory(Path(given.memory_child))))
        return
    found = dict(measure_all(given.steps, given.gigabytes, given.only or ""))
    print(json.dumps(found) if given.json else "\n".join(f"{name:<36}{value:10.3f}" for name, value in found.items()))


def measure_all(steps: int, gigabytes: float, only: str) -> Iterator[tuple[str, float]]:
    """Yield each ratio with its name."""
    with tempfile.TemporaryDirectory(prefix="anna-benchmark-") as name:
        folder = Path(name)
        write_set(folder / "small.h5", 5000)
        for network in NETWORKS:
            if not f"{network}_over_bare".startswith(only):
                continue
            n = max(4 * TURN, steps // 5) if network == "compact" else steps
            ours, bare = take_turns(parameters(folder, network, n))
            yield f"{network}_over_bare", paired_ratio(bare, ours)
            yield f"{network}_steps_per_second", 1 / statistics.median(ours)
        if "larger_than_memory_over_in_memory".startswith(only):
            write_set(folder / "large.h5", int(gigabytes * 1e9 / 4 / GRID.n_pixel))
            yield from measure_large(folder, steps)


def take_turns(settings: config.Config) -> tuple[list[float], list[float]]:
    """Return the seconds a step of the turns of `anna train`, and of the bare loop that takes turns with it."""
    bare_step = bare_loop(settings)
    ours: list[float] = []
    bare: list[float] = []
    mark = time.perf_counter()

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal mark
        if done % TURN:
            return
        start = time.perf_counter()
        ours.append((start - mark) / TURN)
        for _ in range(TURN):
            bare_step()
        mark = time.perf_counter()
        bare.append((mark - start) / TURN)

    train(settings, progress=report, say=lambda text: None)
    warm = len(ours) // 10 + 1
    return ours[warm:], bare[warm:]


def paired_ratio(one: list[float], other: list[float]) -> float:
    """Return the median ratio of a step of `one` to the steps of `other` just before and after it."""
    beside = [(before + after) / 2 for before, after in itertools.pairwise(other)]
    return statistics.median(a / b for a, b in zip(one, beside, strict=False))


def bare_loop(settings: config.Config) -> Callable[[], None]:
    """Return a function that trains the same network for a step, as plainly as PyTorch can."""
    task = prepare_task(settings, CPU)
    network = build_network(settings, task).train()
    optimizer = make_optimizer(network, settings.stage[0], CPU)
    whole = task.source.draw(0, 5000)
    size = settings.stage[0].batch_size

    def step() -> None:
        chosen = torch.randint(len(whole.flux), (size,))
        mean, spread = network(whole.flux[chosen])
        cost = cost_of(mean, spread, whole.scaled[chosen])
        optimizer.zero_grad(set_to_none=True)
        cost.backward()
        optimizer.step()

    return step


def measure_large(folder: Path, steps: int) -> Iterator[tuple[str, float]]:
    """Compare training from a file that may not be held in memory with training from one that is."""
    read_once(folder / "large.h5")
    large = parameters(folder, "anna128", steps, data="large.h5", memory=0.5)
    small = parameters(folder, "anna128", steps)
    from_disk, in_memory = alternate(large, small)
    yield "larger_than_memory_over_in_memory", paired_ratio(in_memory, from_disk)
    child = subprocess.run(
        [sys.executable, __file__, "--memory-child", str(large.path)], check=True, capture_output=True, text=True
    )
    yield "peak_private_mb", json.loads(child.stdout)


def alternate(*settings: config.Config) -> list[list[float]]:
    """Return the seconds a step of the turns of several runs that take turns, each in a thread of its own."""
    turns = [threading.Semaphore(i == 0) for i in range(len(settings))]
    seconds: list[list[float]] = [[] for _ in settings]

    def run(i: int) -> None:
        turns[i].acquire()
        mark = time.perf_counter()

        def report(done: int, total: int, note: str = "") -> None:
            nonlocal mark
            if done % TURN:
                return
            seconds[i].append((time.perf_counter() - mark) / TURN)
            turns[(i + 1) % len(settings)].release()
            turns[i].acquire()
            mark = time.perf_counter()

        train(settings[i], progress=report, say=lambda text: None)
        turns[(i + 1) % len(settings)].release()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(settings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each[len(each) // 10 + 1 :] for each in seconds]


def train_and_watch_memory(path: Path) -> float:
    """Train, and return the most private (anonymous) memory that this process had, in MB."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            status = Path("/proc/self/status").read_text(encoding="ascii")
            peak = max(peak, int(status.split("RssAnon:")[1].split()[0]))

    thread = threading.Thread(target=watch)
    thread.start()
    train(config.load(path), say=lambda text: None)
    done.set()
    thread.join()
    return peak / 1024


def parameters(folder: Path, network: str, steps: int, data: str = "small.h5", memory: float = 4.0) -> config.Config:
    """Return the parameters of a run, written to a file of its own."""
    table = {
        "data": {"train": data, "memory": memory},
        "network": NETWORKS[network],
        "augmentation": AUGMENTATION,
        "stage": [{"learning_rate": 1e-4, "steps": steps, "batch_size": 100}],
        "validation": {"interval": 10**6},
        "run": {"tensorboard": False, "checkpoint_interval": 10**6},
    }
    path = folder / f"{network}_{Path(data).stem}.toml"
    path.write_text(config.dumps(table), encoding="utf-8")
    return config.load(path)


def write_set(path: Path, n: int) -> None:
    """Write spectra of random numbers around 1, a block at a time."""
    random = np.random.default_rng(1)
    flux = 1 - 0.2 * random.random((1000, GRID.n_pixel), dtype=np.float32)
    with TrainingSetWriter(path, GRID, ["teff", "logg", "feh", "vmic", "vsini"], [""] * 5, n) as writer:
        for first in range(0, n, 1000):
            rows = min(1000, n - first)
            writer.append(flux[:rows], random.random((rows, 5)), np.arange(first, first + rows))


def read_once(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


if __name__ == "__main__":
    main()
