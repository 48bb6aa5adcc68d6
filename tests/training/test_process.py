"""Several processes: the same cost curve, files by one only, and a device that is there."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

torch = pytest.importorskip("torch")

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.training import compute
from anna_onnx.training.checkpoint import RunDirectory
from anna_onnx.training.loop import train
from anna_onnx.training.process import default_threads, interruption, usable_cores

COMMAND = "from anna_onnx_cli.anna import main; main()"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def torchrun(settings, *more):
    """Train with two processes on the processor."""
    script = settings.path.parent / "anna_train.py"
    script.write_text(COMMAND)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1",
         f"--master-port={free_port()}", str(script), "train", str(settings.path), *more],
        check=True, capture_output=True, timeout=240, text=True,
    )  # fmt: skip
    directory = RunDirectory.newest(settings.resolve(settings.run.directory))
    assert done.stdout.split() == [str(directory.path)]  # said by one process only
    return directory


def test_two_processes_follow_the_cost_curve_of_one_and_write_one_run(toy):
    stage = {"steps": 200, "batch_size": 40}
    settings = toy(stage=stage, augmentation=None, validation={"interval": 50}, run={"tensorboard": True})
    alone = train(settings, say=lambda text: None)
    shared = torchrun(settings)
    assert len(list(settings.resolve("runs").iterdir())) == 2
    one, two = (directory.read_history() for directory in (alone, shared))
    assert [row["step"] for row in one] == [row["step"] for row in two] == [50, 100, 150, 200]
    # Without noise they see the same spectra, and differ by rounding only.
    for first, second in zip(one, two, strict=True):
        assert second["batch_cost"] == pytest.approx(first["batch_cost"], rel=5e-3)
        assert second["validation_cost"] == pytest.approx(first["validation_cost"], rel=5e-3)


# --- device and precision ------------------------------------------------------


def test_a_device_that_is_not_there_is_said_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="cuda is not available on this machine; auto takes what there is"):
        compute.candidates(config.Run(device="cuda"))


def test_on_a_processor_there_is_no_choice_to_measure(toy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    said = []
    assert compute.choose(toy(), said.append) == compute.Compute(torch.device("cpu"), torch.float32)
    assert said == []


def test_where_there_is_a_choice_the_fastest_is_measured_and_said(toy, monkeypatch):
    cpu = torch.device("cpu")
    both = [compute.Compute(cpu, torch.bfloat16), compute.Compute(cpu, torch.float32)]
    monkeypatch.setattr(compute, "candidates", lambda settings: both)
    times = {torch.bfloat16: 0.002, torch.float32: 0.001}
    monkeypatch.setattr(compute, "step_seconds", lambda one, *shape: times[one.precision])
    said = []
    assert compute.choose(toy(), said.append) == both[1]
    assert said == ["chosen: cpu float32 (a step takes: cpu bfloat16 2.00 ms, cpu float32 1.00 ms)"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
@torch.no_grad()
def test_a_compiled_forward_pass_answers_the_same():
    network, flux = torch.nn.Linear(3, 2), torch.rand(5, 3)
    answer = compute.compiled(network, torch.device("cpu"))(flux)
    assert torch.allclose(answer, network(flux), atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_measuring_leaves_the_random_numbers_alone(toy, precision):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert compute.step_seconds(compute.Compute(torch.device("cpu"), precision), toy(), 48, 2) > 0
    assert torch.equal(torch.rand(1), expected)


def test_training_in_bfloat16_learns_and_goes_on_in_it(toy):
    settings = toy(run={"precision": "bfloat16"}, stage={"steps": 100})
    directory = train(settings, say=lambda text: None)
    rows = directory.read_history()
    assert rows[-1]["batch_cost"] < 0.5 * rows[0]["batch_cost"]
    assert directory.read_info()["precision"] == "bfloat16"
    changed = dataclasses.replace(settings, run=dataclasses.replace(settings.run, precision="auto"))
    said = []
    train(changed, resume=directory, say=said.append)
    assert "bfloat16" in said[0]


def test_threads_are_shared_by_processes(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert default_threads() == usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert default_threads() == max(1, usable_cores() // 2)


# --- interruption ----------------------------------------------------------------


def test_the_first_ctrl_c_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)  # ignored where a shell put the tests into the background
    with interruption() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_process_that_does_not_lead_leaves_ctrl_c_to_the_one_that_does():
    with interruption(leads=False) as asked:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert not asked()


def test_outside_the_main_thread_nobody_is_interrupted():
    answers = []

    def body():
        with interruption() as asked:
            answers.append(asked())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert answers == [False]
