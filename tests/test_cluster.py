"""The same table from a Dask cluster, also when a worker is killed on the way."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed")
pytest.importorskip("onnx")

from anna_onnx.bundle import write
from anna_onnx.errors import AnnaError
from anna_onnx.pipeline import infer_to_table
from anna_onnx.trainingset import TrainingSetWriter
from tests import tiny


def write_spectra(path: Path, n: int) -> None:
    flux = 1 - np.arange(n, dtype=np.float32)[:, None] / (2 * n) * np.ones((1, 50), np.float32)
    with TrainingSetWriter(path, tiny.GRID, ["teff"], ["K"], n) as writer:
        writer.append(flux, np.zeros((n, 1)), np.arange(n, dtype=np.float64))


def test_a_worker_that_dies_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client, LocalCluster

    model = tmp_path / "tiny.onnx"
    write(model, tiny.correlated_model().SerializeToString(), tiny.sidecar())
    monkeypatch.setattr("anna_onnx.pipeline.SHARD_ROWS", 500)
    write_spectra(tmp_path / "many.h5", 10_000)
    (tmp_path / "junk.txt").write_text("no spectrum", encoding="utf-8")
    files = [str(tmp_path / name) for name in ("many.h5", "junk.txt", "many.h5")]
    alone = infer_to_table(str(model), files, str(tmp_path / "alone.csv"), covariance=True)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        with Client(cluster, set_as_default=False) as client:
            victim = next(iter(client.run(os.getpid).values()))
        part = tmp_path / "together.csv.part"

        def kill() -> None:
            while not part.exists() or part.stat().st_size < 10_000:
                time.sleep(0.01)
            os.kill(victim, getattr(signal, "SIGKILL", signal.SIGTERM))

        killer = threading.Thread(target=kill)
        killer.start()
        address = cluster.scheduler_address
        together = infer_to_table(str(model), files, str(tmp_path / "together.csv"), covariance=True, scheduler=address)
        killer.join()
    assert (together.rows, together.failed) == (alone.rows, alone.failed) == (20_001, 1)
    assert (tmp_path / "together.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path) -> None:
    tiny.bundle(tmp_path / "tiny.onnx")
    star = tiny.write_star(tmp_path / "star.txt")
    with pytest.raises(AnnaError, match="does not answer"):
        infer_to_table(str(tmp_path / "tiny.onnx"), [str(star)], None, scheduler="nonsense://here")
