"""How soon ``anna-lite`` answers, started anew each time, files in the cache of the system.

``infer_over_imports``  ``anna-lite infer model.onnx one.txt``, whole process, over a process that only
                        imports numpy, onnxruntime, h5py and click and creates the session
``infer_over_sum``      the same over the sum of these imports and the session measured inside that process,
                        so without the start of the interpreter
``help_s``              ``anna-lite --help``, seconds

All runs are of compiled code, as installed packages are, and take turns; medians count.

    python benchmarks/cold_start.py --json
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from materials import GRID, make_model, spectra

LITE = "from anna_onnx_cli.lite import run; run()"  # as the installed command
IMPORTS = """
import os, sys, time
started = time.perf_counter()
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, onnxruntime, h5py, click
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(time.perf_counter() - started)
"""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--model", type=click.Path(exists=True), help="Bundle (default: the manual's architecture).")
@click.option("--repeat", default=15, show_default=True)
def main(as_json: bool, model: str | None, repeat: int) -> None:
    """Measure the start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if model is None:
            model = str(folder / "model.onnx")
            make_model(Path(model))
        np.savetxt(folder / "one.txt", np.column_stack([GRID.wavelength, spectra(1, np.random.default_rng(1))[0]]))
        found = measure(model, folder, repeat)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            click.echo(f"{key:20} {value:.3f}")


def measure(model: str, folder: Path, repeat: int) -> dict[str, float]:
    """Run everything in turns."""
    commands = {
        "infer": [LITE, "infer", model, str(folder / "one.txt")],
        "imports": [IMPORTS, model],
        "help": [LITE, "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    inside = []
    for turn in range(repeat + 1):
        for name, command in commands.items():
            elapsed, output = _run(command, folder)
            if turn:  # the first one compiles
                seconds[name].append(elapsed)
                inside += [float(output)] if name == "imports" else []
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "infer_over_imports": statistics.median(_ratios(seconds["infer"], seconds["imports"])),
        "infer_over_sum": statistics.median(_ratios(seconds["infer"], inside)),
        "infer_s": middle["infer"],
        "imports_s": middle["imports"],
        "help_s": middle["help"],
    }


def _ratios(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def _run(command: list[str], folder: Path) -> tuple[float, str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "pycache")
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True, check=True, env=environment)
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
