"""A million spectra on a Dask cluster of two workers, one of which is killed on the way.

    python benchmarks/dask_cluster.py --json

The table must be complete, with nothing twice and nothing missing.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import click
from distributed import Client, LocalCluster
from materials import LABELS, make_model, write_training_set

from anna_onnx.pipeline import infer_to_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--files", default=10, show_default=True, help="Training sets that the rows are spread over.")
def main(as_json: bool, rows: int, files: int) -> None:
    """Infer on a cluster and check the table."""
    with tempfile.TemporaryDirectory() as name:
        found = run(Path(name), rows, files)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(f"{k:12} {v}" for k, v in found.items()))
    if not found["complete"]:
        sys.exit(1)


def run(folder: Path, rows: int, n_file: int) -> dict[str, float | bool]:
    """Make the spectra, infer them, kill a worker when a part of the table stands, and compare."""
    model = folder / "model.onnx"
    make_model(model)
    source = folder / "spectra_0.h5"
    write_training_set(source, rows // n_file)
    files = [source, *(folder / f"spectra_{i}.h5" for i in range(1, n_file))]
    for link in files[1:]:
        os.link(source, link)  # the same bytes under other names take no room
    output = folder / "labels.csv"
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(folder)
    ) as cluster:
        before = _workers(cluster.scheduler_address)
        killer = threading.Thread(
            target=_kill_late, args=(output.with_name("labels.csv.part"), next(iter(before.values())))
        )
        killer.start()
        started = time.perf_counter()
        infer_to_table(str(model), [str(file) for file in files], str(output), scheduler=cluster.scheduler_address)
        seconds = time.perf_counter() - started
        killer.join()
        after = _workers(cluster.scheduler_address)
    return {
        "rows": rows // n_file * n_file,
        "complete": _is_complete(output, [str(file) for file in files], rows // n_file),
        "killed": not set(before.values()) <= set(after.values()),
        "seconds": round(seconds, 1),
        "per_s": round(rows / seconds),
    }


def _workers(address: str) -> dict[str, int]:
    with Client(address, set_as_default=False) as client:
        return dict(client.run(os.getpid))


def _kill_late(part: Path, pid: int) -> None:
    """Kill a worker once some of the table is written."""
    while not part.exists() or part.stat().st_size < 100_000:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


def _is_complete(output: Path, files: list[str], rows: int) -> bool:
    """Whether the table has every row of every file once, in order, with labels."""
    wanted = ((file, str(row)) for file in files for row in range(rows))
    with output.open(encoding="utf-8", newline="") as file:
        for found in csv.DictReader(file):
            if (found["file"], found["row"]) != next(wanted, None) or found[LABELS[0].name] == "nan":
                return False
    return next(wanted, None) is None


if __name__ == "__main__":
    main()
