"""How fast ``anna-lite infer`` is, as ratios to what the pieces below it do alone.

``fits_over_getdata``      2000 FITS files to a table, whole process, over the rate of astropy's getdata on them.
                           It is the reading that is measured: the network is a small one, of the
                           manual's architecture with random weights
``bulk_over_onnxruntime``  100,000 spectra of one HDF5 file to a table, whole process, over bare onnxruntime on
                           arrays in memory: a session on all cores, at the batch that suits it best
``bulk_over_session_a_core``  the same over as many threads as cores, each asking a session of one thread
``model``                  whose network that was: ``--model``, the released one, or before there is one
                           ``made``, the same as above
``peak_mb``                the most memory that any of the runs took, its processes together

    python benchmarks/infer.py --json
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import click
import numpy as np
from materials import make_model, spectra, write_fits, write_training_set

from anna_onnx.bundle import Bundle
from anna_onnx.cores import usable_cores

RELEASED = Path(__file__).parents[1] / "models" / "fgk-6625-6825.onnx"
LITE = [sys.executable, "-c", "from anna_onnx_cli.lite import run; run()"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    default=lambda: RELEASED if RELEASED.exists() else None,
    help="Bundle for bulk_over_onnxruntime (default: the released one, before there is one as for the files).",
)
@click.option("--files", default=2000, show_default=True)
@click.option("--rows", default=100_000, show_default=True)
@click.option("--repeat", default=5, show_default=True, help="Runs; the median counts.")
def main(as_json: bool, model: Path | None, files: int, rows: int, repeat: int) -> None:
    """Measure inference at scale."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = folder / "made.onnx"
        make_model(made)
        bundle = model or made
        fits, fits_peak = measure_fits(folder, made, files, repeat)
        bulk, bulk_peak = measure_bulk(folder, bundle, rows, repeat)
    found = {"model": bundle.stem, **fits, **bulk, "peak_mb": round(max(fits_peak, bulk_peak), 1)}
    found["cores"] = usable_cores()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            click.echo(f"{key:28} {value if isinstance(value, str) else format(value, '.4g')}")


def measure_fits(folder: Path, model: Path, n: int, repeat: int) -> tuple[dict[str, float], float]:
    """Compare inference of single-spectrum files with reading them, turn by turn."""
    from astropy.io import fits

    paths = [str(path) for path in write_fits(folder, n)]
    listed = folder / "files.txt"
    listed.write_text("\n".join(paths), encoding="utf-8")
    fits.getdata(paths[0], header=True)  # its imports do not count
    ours, theirs, peaks = [], [], [0.0]
    for _ in range(repeat):
        theirs.append(_seconds(lambda: [fits.getdata(path, header=True) for path in paths]))
        seconds, peak = _infer(model, [f"@{listed}"], folder / "fits.csv")
        ours.append(seconds)
        peaks.append(peak)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "fits_over_getdata": statistics.median(ratios),
        "getdata_per_s": n / statistics.median(theirs),
        "fits_per_s": n / statistics.median(ours),
    }, max(peaks)


def measure_bulk(folder: Path, model: Path, n: int, repeat: int) -> tuple[dict[str, float], float]:
    """Compare inference of one large file with bare onnxruntime, turn by turn."""
    import onnxruntime as ort

    grid = Bundle.load(model).sidecar.grid
    write_training_set(folder / "bulk.h5", n, grid)
    flux = spectra(min(n, 5000), np.random.default_rng(5), grid.wavelength)
    sessions = {}
    for threads in {1, usable_cores()}:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        sessions[threads] = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def bare(threads: int, size: int, total: int) -> None:
        """Ask for all spectra, each call on some of the cores, as many calls at a time as these leave cores for."""

        def ask(first: int) -> None:
            start = first % len(flux)
            sessions[threads].run(None, {"flux": flux[start : start + size]})

        with ThreadPoolExecutor(usable_cores() // threads) as pool:
            deque(pool.map(ask, range(0, total, size)), maxlen=0)

    for threads in sessions:
        bare(threads, 128, len(flux))

    def best_size(threads: int) -> int:
        return min((32, 64, 128, 250, 1000), key=lambda size: _seconds(partial(bare, threads, size, len(flux))))

    sizes = {threads: best_size(threads) for threads in sessions}
    ours, peaks = [], [0.0]
    theirs: dict[int, list[float]] = {threads: [] for threads in sessions}
    for _ in range(repeat):
        for threads, size in sizes.items():
            theirs[threads].append(_seconds(partial(bare, threads, size, n)))
        seconds, peak = _infer(model, [str(folder / "bulk.h5")], folder / "bulk.csv")
        ours.append(seconds)
        peaks.append(peak)

    def over(threads: int) -> float:
        return statistics.median(b / a for a, b in zip(ours, theirs[threads], strict=True))

    return {
        "bulk_over_onnxruntime": over(usable_cores()),
        "bulk_over_session_a_core": over(1),
        "onnxruntime_per_s": n / statistics.median(theirs[usable_cores()]),
        "session_a_core_per_s": n / statistics.median(theirs[1]),
        "bulk_per_s": n / statistics.median(ours),
    }, max(peaks)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _infer(model: Path, files: list[str], output: Path) -> tuple[float, float]:
    """Run ``anna-lite infer``; return its seconds and the peak of its memory in MB."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(output.parent / "pycache")  # as installed: compiled
    command = [*LITE, "infer", str(model), *files, "-o", str(output)]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak))
    watch.start()
    status = process.wait()
    seconds = time.perf_counter() - started
    watch.join()
    if status:
        raise SystemExit(f"anna-lite infer failed with status {status}")
    return seconds, peak[0]


def _watch(pid: int, peak: list[float]) -> None:
    """Note the largest sum of the resident memory of a process and its children."""
    while Path(f"/proc/{pid}").exists():
        try:
            pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in [pid, *_children(pid)])
        except (OSError, IndexError):
            pages = 0
        peak[0] = max(peak[0], pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        if _is_zombie(pid):
            return
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


if __name__ == "__main__":
    main()
