"""How a run in several processes ends when one of them does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny

if sys.platform != "linux":
    pytest.skip("needs /proc", allow_module_level=True)

FEW_FILES_EACH = "from anna_onnx import pipeline; pipeline.SHARD_FILES = 10; from anna_onnx_cli.lite import run; run()"


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _heeds_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where a shell put the tests into the background


class Run:
    """A run in two processes over the same file again and again, which would take minutes."""

    def __init__(self, folder: Path) -> None:
        tiny.bundle(folder / "tiny.onnx")
        tiny.write_star(folder / "star.txt")
        (folder / "list").write_text("star.txt\n" * 200_000, encoding="utf-8")
        self.part = folder / "labels.csv.part"
        words = ["infer", "tiny.onnx", "@list", "-o", "labels.csv", "--processes", "2"]
        command = [sys.executable, "-c", FEW_FILES_EACH, *words]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self.process = subprocess.Popen(
            command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
            preexec_fn=_heeds_ctrl_c,
        )  # fmt: skip

    def begin(self) -> list[int]:
        """Wait for the first rows and return the processes that share the files."""
        wait_for(lambda: self.part.exists() and self.part.read_bytes().count(b"\n") > 1)
        found = workers(self.process.pid)
        assert len(found) == 2
        return found

    def end(self) -> tuple[int, str]:
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said


KEPT = "; the rows so far are in labels.csv.part, --resume goes on\n"


def test_told_to_end_it_ends_as_with_ctrl_c(tmp_path: Path) -> None:
    run = Run(tmp_path)
    shared = run.begin()
    run.process.terminate()
    assert run.end() == (1, f"Error: interrupted{KEPT}")
    wait_for(lambda: not any(map(lives, shared)))


def test_processes_end_when_the_first_was_killed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    shared = run.begin()
    run.process.kill()
    run.process.wait()
    wait_for(lambda: not any(map(lives, shared)))


def test_a_process_that_was_killed_is_said(tmp_path: Path) -> None:
    run = Run(tmp_path)
    os.kill(run.begin()[0], signal.SIGKILL)
    assert run.end() == (1, f"Error: a process ended before its time (out of memory?){KEPT}")


def test_ctrl_c_while_processes_start_is_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path)
    wait_for(lambda: bool(workers(run.process.pid)))
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    assert run.end() == (1, "Error: interrupted\n")
