"""The run directory and the checkpoints in it.

::

    runs/2026-11-22T18-30-05/
        params.toml              the parameters as given
        run.json                 versions, hardware, seed, hashes of the data, labels, status
        history.csv              one row for each look at the validation set
        advice.txt               what seemed wrong, if anything did
        checkpoint.safetensors   weights, optimiser and counters: where --resume goes on
        best.safetensors         the weights with the least validation cost
        tensorboard/             charts
        trace.json               time line of some steps, on request

Tensors and JSON only (safetensors); every file is complete or absent, but history.csv and advice.txt, which grow
line by line (a line that was cut off is dropped), and trace.json.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from anna_onnx import config
from anna_onnx.errors import ConfigError, TrainingError
from anna_onnx.files import open_alone
from anna_onnx.labels import Label

WHOLE_HASH = 2**30  # larger files are hashed at places only


@dataclass
class State:
    """Where a run stands, besides weights and optimiser.

    Attributes
    ----------
    step : int
        Steps done.
    best_cost : float
        Least validation cost so far (or mean batch cost, without validation).
    best_step : int
    looks_without_gain : int
    cost_sum : float
        Of the batches since the last look.
    cost_count : int
    rate_factor : float
        On the learning rate, lowered on a plateau.
    loss_scale : float
        Of float16, so that small gradients are not lost.
    loss_scale_steps : int
        Since it last changed.
    stopped_early : bool
    seconds : float
        Training time so far.
    advised : list of str
        What was advised, by the names of `anna_onnx.training.diagnosis`.
    """

    step: int = 0
    best_cost: float = float("inf")
    best_step: int = 0
    looks_without_gain: int = 0
    cost_sum: float = 0.0
    cost_count: int = 0
    rate_factor: float = 1.0
    loss_scale: float = 65536.0
    loss_scale_steps: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    advised: list[str] = field(default_factory=list)


class RunDirectory:
    """The folder of one training run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, parent: Path) -> RunDirectory:
        """Make a new folder, named by the time, in `parent`.

        Raises
        ------
        TrainingError
            If it cannot be made.
        """
        name = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for attempt in range(100):
                path = parent / (name if attempt == 0 else f"{name}-{attempt}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path)
        except OSError as error:
            raise TrainingError(f"{parent}: no run can be kept there ({error.strerror})") from error
        raise TrainingError(f"{parent}: too many runs started in this second")

    @classmethod
    def newest(cls, parent: Path, params: Path | None = None) -> RunDirectory:
        """Return the run in `parent` that started last, of the parameter file `params` if one is given.

        Raises
        ------
        TrainingError
            If there is none.
        """
        paths = [path.parent for path in sorted(parent.glob("*/run.json"))]
        runs = [cls(path) for path in paths if (path / "params.toml").is_file()]
        if not runs:
            raise TrainingError(f"{parent}: no run in it; start one with 'anna train {params or 'params.toml'}'")
        if params is not None:
            runs = [run for run in runs if run.began_with(params)]
            if not runs:
                raise TrainingError(f"{parent}: no run of {params} in it; name the one to go on with: --run FOLDER")
        return max(runs, key=lambda run: (run.path / "params.toml").stat().st_mtime)

    def began_with(self, params: Path) -> bool:
        """Whether a parameter file started the run; one that does not say which, of an older version, may have."""
        try:
            info = self.read_info()
        except TrainingError:
            return False
        folder, name = str(params.parent.resolve()), params.name
        return (info["folder"], info.get("params", name)) == (folder, name)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training in the folder meanwhile.

        Raises
        ------
        TrainingError
            If one does.
        """
        path = self.path / ".lock"
        with explained(path):
            lock = open_alone(path)
        if lock is None:
            raise TrainingError(f"{self.path}: is being trained by another process")
        try:
            yield
        finally:
            # Before it is given free, or another's would go; Windows removes no open file, where it may stay.
            with suppress(OSError):
                path.unlink()
            lock.close()

    def settings(self) -> config.Config:
        """Return the parameters of the run; files that they name are looked for where they were.

        Raises
        ------
        TrainingError, ConfigError
            If they are not there, or damaged.
        """
        path = Path(self.read_info()["folder"]) / "params.toml"
        kept = self.path / "params.toml"
        try:
            text = kept.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"{kept}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        try:
            return config.loads(text, path)
        except ConfigError as error:
            raise ConfigError(str(kept), error.problems) from None

    def write_text(self, name: str, text: str) -> None:
        """Write a small file, complete or not at all."""
        partial = self.path / f".{name}.part"
        try:
            with explained(self.path / name):
                partial.write_text(text, encoding="utf-8")
                partial.replace(self.path / name)
        finally:
            partial.unlink(missing_ok=True)

    def append_line(self, name: str, line: str) -> None:
        """Add a line to a text file."""
        with explained(self.path / name), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Write run.json."""
        self.write_text("run.json", json.dumps(info, indent=2) + "\n")

    def read_info(self) -> dict[str, Any]:
        """Read run.json.

        Raises
        ------
        TrainingError
            If it is not there, or damaged.
        """
        try:
            info: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.path}: not a run directory ({error})") from error
        if not isinstance(info, dict) or "folder" not in info:
            raise TrainingError(f"{self.path}: not a run directory (run.json does not say where the run began)")
        return info

    def labels(self) -> tuple[Label, ...]:
        """Return the labels of the run."""
        return tuple(Label(**label) for label in self.read_info()["labels"])

    def append_history(self, row: Mapping[str, float]) -> None:
        """Add a row to history.csv."""
        path = self.path / "history.csv"
        fresh = not path.exists() or not path.stat().st_size
        with explained(path), path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def read_history(self) -> list[dict[str, float]]:
        """Return the rows of history.csv."""
        path = self.path / "history.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]

    def forget_after(self, step: int) -> None:
        """Drop what a resumed run will write again, rows and advice, and lines that were cut off."""
        self._keep_lines("history.csv", lambda row: row.startswith("step") or float(row.split(",")[0]) <= step)
        self._keep_lines("advice.txt", lambda line: int(line.split(":")[0].removeprefix("step ")) <= step)

    def _keep_lines(self, name: str, wanted: Callable[[str], bool]) -> None:
        """Write a file, if there is one, again with some of its lines; the last is none if it was cut off."""
        path = self.path / name
        if path.exists():
            *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
            try:
                kept = [f"{line}\n" for line in lines if wanted(line)]
            except ValueError as error:
                raise TrainingError(f"{path}: damaged ({error}); without it the run goes on") from error
            self.write_text(name, "".join(kept))

    def save_checkpoint(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, state: State, extra: Mapping[str, Tensor]
    ) -> None:
        """Save all that going on needs."""
        tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
        tensors |= {f"extra.{name}": value for name, value in extra.items()}
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        _save(self.path / "checkpoint.safetensors", tensors, asdict(state))

    def load_checkpoint(self) -> tuple[dict[str, Tensor], State]:
        """Return the tensors and the state of the checkpoint."""
        tensors, about = _load(self.path / "checkpoint.safetensors")
        return tensors, State(**about)

    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return (self.path / "checkpoint.safetensors").exists()

    def save_best(self, weights: Mapping[str, Tensor], state: State) -> None:
        """Save the best weights so far."""
        _save(self.path / "best.safetensors", weights, asdict(state))

    def load_best(self) -> tuple[dict[str, Tensor], State]:
        """Return the best weights and the state in which they were found."""
        tensors, about = _load(self.path / "best.safetensors")
        return tensors, State(**about)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the moments that a checkpoint holds."""
    state = optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = value
    state["state"] = moments
    optimizer.load_state_dict(state)


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into clear words."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        run = path.parent
        advice = "make room and start again"
        if (run / "checkpoint.safetensors").exists():
            advice = f"the last checkpoint is untouched: make room and go on with 'anna train --resume --run {run}'"
        raise TrainingError(
            f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}); {advice}"
        ) from error


def _save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.part")
    plain = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    try:
        with explained(path):
            save_file(plain, partial, metadata={"anna": json.dumps(about)})
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["anna"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path}: not a whole checkpoint ({error})") from error


def describe_run(seed: int, labels: Sequence[Label], data: Mapping[str, Path], device: torch.device) -> dict[str, Any]:
    """Return what run.json says of a run when it starts."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "labels": [asdict(label) for label in labels],
        "data": {name: {"file": path.name, "sha256": hash_file(path)} for name, path in data.items()},
        "versions": {name: metadata.version(name) for name in ("anna-onnx", "torch", "numpy")},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(),
        },
    }


def hash_file(path: Path) -> str:
    """Return the sha256 of a file; of a very large one, of its size and a thousand places in it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_HASH:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        for i in range(1000):
            file.seek(i * (size - 65536) // 999)
            digest.update(file.read(65536))
    return f"sampled-{digest.hexdigest()}"
