"""Several processes that share the files of a run, each with a session of its own.

They end when the process that started them does, however that comes about: each listens at
one end of a pipe whose other end that one holds, and the system closes it in any case.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from anna_onnx.blocks import Part
from anna_onnx.bundle import Bundle
from anna_onnx.cores import processes_for, usable_cores
from anna_onnx.errors import AnnaError
from anna_onnx.inference import Inference, InferOptions
from anna_onnx.pieces import in_order
from anna_onnx.results import Rows, join

if TYPE_CHECKING:
    from concurrent.futures import Future
    from multiprocessing.connection import Connection

_inference: Inference  # of a process of the pool


def run_in_processes(bundle: Bundle, options: InferOptions, shards: Iterator[list[Part]], n: int) -> Iterator[Rows]:
    """Infer shards in several processes, in their order, a few ahead of what was taken.

    Parameters
    ----------
    bundle : Bundle
    options : InferOptions
        Its threads are shared out among the processes.
    shards : iterator of lists of Part
    n : int
        Processes.

    Yields
    ------
    Rows

    Raises
    ------
    AnnaError
        If a process ends before its time.
    """
    import multiprocessing
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor

    n = processes_for(n)
    alone = replace(options, threads=max(1, (options.threads or usable_cores()) // n))
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    with theirs, ours, ProcessPoolExecutor(n, context, initializer=_start, initargs=(bundle, alone, theirs)) as pool:

        def submit(shard: list[Part]) -> Future[Rows]:
            with _ctrl_c_held_back():  # here processes are started
                return pool.submit(_infer_shard, shard)

        try:
            for rows in in_order(submit, shards, 2 * n):
                yield rows.result()
        except BrokenExecutor as error:
            raise AnnaError("a process ended before its time (out of memory?)") from error
        finally:
            ours.close()  # who is still at work need not go on: nobody takes the rows
            pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Hold Ctrl-C back for the block, and for ever in a process that it starts: ending it is for this one to do."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(bundle: Bundle, options: InferOptions, line: Connection) -> None:
    from threading import Thread

    global _inference
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows cannot hold it back
    Thread(target=_end_with, args=(line,), daemon=True).start()
    _inference = Inference(bundle, options)


def _end_with(line: Connection) -> None:
    """End this process when nobody holds the other end of a line any more."""
    import os

    try:
        line.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _infer_shard(shard: list[Part]) -> Rows:
    return join(list(_inference.run_parts(shard)))
