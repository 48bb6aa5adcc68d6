"""How soon ``anna init``'s recipe is as good as the old program at the end of its tutorial.

    python benchmarks/time_to_accuracy.py DATA [--json] [--steps N]

DATA holds train_5000.bin, valid_1000.bin and sn.robo.template. The recipe trains
until the RMS of all five labels is below the old program's; the manual's tutorial
recipe (15000 steps of the old network) takes turns with it, step by step, so that
a busy machine slows both alike. Its time is its median step times 15000; `--full`
lets it run to its end instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

from anna_onnx import config
from anna_onnx.starter import write_starter
from anna_onnx.training.loop import Row, train

OLD_PROGRAM = {"teff": 257.0, "logg": 0.45, "feh": 0.09, "vmic": 0.53, "vsini": 5.3}
LABELS = {
    "names": list(OLD_PROGRAM),
    "low": [4000.0, 2.7, -0.5, 0.0, 0.0],
    "high": [7000.0, 4.8, 0.2, 3.0, 40.0],
}
TUTORIAL = [
    {"learning_rate": 5e-5, "steps": 13000, "batch_size": 100, "keep_probability": 0.8},
    {"learning_rate": 1e-6, "steps": 2000, "batch_size": 100},
]
LOOK = 50  # steps between looks at the validation set


class GoodEnoughError(Exception):
    """All labels are as good as the old program's."""


def main() -> None:
    """Train, take turns, print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    arguments.add_argument("--steps", type=int, help="of the recipe's schedule, in place of its own number")
    arguments.add_argument("--full", action="store_true", help="run the tutorial recipe to its end")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="anna-benchmark-") as name:
        folder = Path(name)
        found = measure(recipe(folder, given.data, given.steps), tutorial(folder, given.data), given.full)
    print(json.dumps(found) if given.json else "\n".join(f"{key:<28}{value:12.4g}" for key, value in found.items()))


def measure(ours: config.Config, old: config.Config, full: bool) -> dict[str, float]:
    """Train both in turns until ours is good enough; return times and their ratio."""
    our_turn, old_turn = threading.Semaphore(1), threading.Semaphore(0)
    reached = threading.Event()
    our_seconds: list[float] = []
    old_seconds: list[float] = []
    last: Row = {}

    def train_ours() -> None:
        def look(row: Row) -> None:
            last.update(row)
            if all(row[f"rms_{name}"] <= limit for name, limit in OLD_PROGRAM.items()):
                raise GoodEnoughError

        try:
            take_turns(ours, our_seconds, our_turn, old_turn, look)
        except GoodEnoughError:
            last["reached"] = 1.0
        reached.set()
        old_turn.release()

    def train_old() -> None:
        def stop(row: Row) -> None:
            if reached.is_set() and not full:
                raise GoodEnoughError

        try:
            take_turns(old, old_seconds, old_turn, our_turn, stop, reached)
        except GoodEnoughError:
            return

    threads = [threading.Thread(target=train_ours), threading.Thread(target=train_old)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if "reached" not in last:
        sys.exit("the recipe did not become as good as the old program")
    whole = sum(old_seconds) if full else statistics.median(old_seconds) * old.steps
    return {
        "steps": float(len(our_seconds)),
        "seconds": sum(our_seconds),
        "tutorial_seconds": whole,
        "over_tutorial": sum(our_seconds) / whole,
        **{name: last[f"rms_{name}"] for name in OLD_PROGRAM},
    }


def take_turns(
    settings: config.Config,
    seconds: list[float],
    mine: threading.Semaphore,
    other: threading.Semaphore,
    look,
    alone: threading.Event | None = None,
) -> None:
    """Train, a step at a turn; once `alone` is set, without waiting."""
    mine.acquire()
    mark = time.perf_counter()

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal mark
        seconds.append(time.perf_counter() - mark)
        if alone is None or not alone.is_set():
            other.release()
            mine.acquire()
        mark = time.perf_counter()

    train(settings, progress=report, say=lambda text: None, look=look)


def recipe(folder: Path, data: Path, steps: int | None) -> config.Config:
    """Return the parameters of `anna init` on the data."""
    path = folder / "recipe.toml"
    write_starter(path, steps=steps)
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return written(path, table, data)


def tutorial(folder: Path, data: Path) -> config.Config:
    """Return the manual's tutorial recipe."""
    table = {
        "network": {"kernel": 45, "filters": 10, "fc1": 128, "fc2": 128, "standardize": False},
        "augmentation": {"snr": [175.0, 250.0], "continuum_offset": [-0.01, 0.01]},
        "stage": TUTORIAL,
    }
    return written(folder / "tutorial.toml", table, data)


def written(path: Path, table: dict, data: Path) -> config.Config:
    """Write parameters that train on the data, and load them."""
    table["data"] = {
        name: str((data / file).resolve())
        for name, file in {"train": "train_5000.bin", "validation": "valid_1000.bin"}.items()
    }
    table["labels"] = LABELS
    table["augmentation"]["snr_template"] = str((data / "sn.robo.template").resolve())
    table["validation"] = {"interval": LOOK, "augment": True}
    table["run"] = {"tensorboard": False, "checkpoint_interval": 1000}
    path.write_text(config.dumps(table), encoding="utf-8")
    return config.load(path)


if __name__ == "__main__":
    main()
