"""The cluster: shards of the work on the machines of a Dask scheduler.

The bundle goes to every worker once, also to those that join later, and each
makes its own session, which cannot be sent. A shard whose worker dies is done
again elsewhere, and its rows are taken once, from where it was done whole.
The workers need anna-onnx, and see the files under the same absolute names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from anna_onnx.blocks import Part
from anna_onnx.bundle import Bundle
from anna_onnx.errors import AnnaError, MissingExtraError
from anna_onnx.inference import Inference, InferOptions
from anna_onnx.pieces import in_order
from anna_onnx.results import Rows, join

try:
    from distributed import Client, Future, WorkerPlugin, get_worker
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker
except ImportError as error:
    raise MissingExtraError("Running on a Dask cluster", "dask") from error

RETRIES = 5
AHEAD = 3  # shards for each thread of the cluster that wait or run


class BundlePlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is not typed
    """The bundle on a worker, and the session that the worker makes of it.

    Parameters
    ----------
    bundle : Bundle
    options : InferOptions
    """

    def __init__(self, bundle: Bundle, options: InferOptions) -> None:
        self.name = f"anna-onnx {bundle.sidecar.sha256} {options}"
        self._bundle, self._options = bundle, options

    def setup(self, worker: Any) -> None:
        """Make the session; called by Dask on every worker."""
        self._lock = Lock()
        self._inference: Inference | None = None

    @property
    def inference(self) -> Inference:
        """The bundle at work, made when it is first needed."""
        with self._lock:
            if self._inference is None:
                self._inference = Inference(self._bundle, self._options)
        return self._inference


def run_on_cluster(
    scheduler: str, bundle: Bundle, options: InferOptions, shards: Iterable[list[Part]]
) -> Iterator[Rows]:
    """Infer shards on a Dask cluster, in their order, a few ahead of what was taken.

    Parameters
    ----------
    scheduler : str
        Address, such as ``tcp://host:8786``.
    bundle : Bundle
    options : InferOptions
        With 0 threads every thread of a worker infers on its own.
    shards : iterable of lists of Part

    Yields
    ------
    Rows

    Raises
    ------
    AnnaError
        If the scheduler does not answer, or a shard is lost for good.
    """
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise AnnaError(f"scheduler {scheduler}: does not answer ({error})") from error
    with client:
        plugin = BundlePlugin(bundle, replace(options, threads=options.threads or 1))
        client.register_plugin(plugin)
        n_thread = sum(client.nthreads().values()) or 1

        def submit(shard: list[Part]) -> tuple[Future, dict[str, str]]:
            names = {str(Path(part.file).absolute()): part.file for part in shard}
            absolute = [replace(part, file=str(Path(part.file).absolute())) for part in shard]
            return client.submit(_infer_shard, plugin.name, absolute, retries=RETRIES, pure=False), names

        for future, names in in_order(submit, shards, AHEAD * n_thread):
            rows = _result(future)
            yield replace(rows, file=[names[file] for file in rows.file])


def _result(future: Future) -> Rows:
    try:
        rows: Rows = future.result()
    except (KilledWorker, FutureCancelledError) as error:
        raise AnnaError(f"the cluster lost a shard for good ({error})") from error
    return rows


def _infer_shard(plugin: str, shard: list[Part]) -> Rows:
    """Infer a shard; runs on a worker."""
    return join(list(get_worker().plugins[plugin].inference.run_parts(shard)))
