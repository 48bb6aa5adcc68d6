"""Checkpoints and runs that are cut off: nothing is lost, and going on gives what an uninterrupted run gives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anna_onnx import config
from anna_onnx.errors import AnnaError, TrainingError
from anna_onnx.training.checkpoint import RunDirectory, State, hash_file
from anna_onnx.training.loop import Trainer, choose_run, train
from anna_onnx.training.process import Process
from anna_onnx.training.task import prepare_task

EVERYTHING = {
    "learning_rate": 3e-3, "steps": 60, "batch_size": 20, "keep_probability": 0.8, "schedule": "cosine",
    "warmup": 5, "average": 0.9, "optimizer": "adamw", "weight_decay": 0.01, "gradient_clip": 1.0,
}  # fmt: skip
TWO_STAGES = [EVERYTHING, {"learning_rate": 1e-3, "steps": 40, "batch_size": 10, "schedule": "plateau"}]


def run(settings, **more):
    return train(settings, say=lambda text: None, **more)


def cut_off(settings, step):
    """Train until a look at `step`, then fail."""

    def look(row):
        if row["step"] >= step:
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        run(settings, look=look)
    return RunDirectory.newest(settings.resolve(settings.run.directory))


def assert_same_end(one, other):
    """Two runs ended with the same weights, bit by bit, and the same history."""
    for load in (RunDirectory.load_best, RunDirectory.load_checkpoint):
        (first, _), (second, _) = load(one), load(other)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    histories = [[{**row, "seconds": 0} for row in directory.read_history()] for directory in (one, other)]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("step", [30, 50, 70, 90])
def test_going_on_gives_bit_for_bit_what_an_uninterrupted_run_gives(toy, step):
    settings = toy(stage=TWO_STAGES)
    whole = run(settings)
    broken = cut_off(settings, step)
    assert broken.path != whole.path
    run(broken.settings(), resume=broken)
    assert_same_end(broken, whole)


def test_going_on_with_an_ensemble_of_compact_networks_from_a_file_larger_than_memory(toy):
    network = {"architecture": "compact", "width": 4, "stages": 2, "dense": 8, "pooled": 2, "members": 2}
    data = {"train": "train.h5", "validation": "valid.h5", "memory": 1e-6}
    settings = toy(network=network, data=data, stage={"steps": 40}, loader={"workers": 1})
    whole, broken = run(settings), cut_off(settings, 30)
    run(broken.settings(), resume=broken)
    assert_same_end(broken, whole)


def test_a_run_cut_off_before_its_first_checkpoint_starts_anew(toy):
    settings = toy()
    whole, broken = run(settings), cut_off(settings, 10)
    assert not broken.has_checkpoint()
    run(broken.settings(), resume=broken)
    assert_same_end(broken, whole)


def test_going_on_with_a_finished_run_changes_nothing(toy):
    directory = run(toy())
    before = directory.load_best()[0], directory.read_history()
    run(directory.settings(), resume=directory)
    assert directory.read_history() == before[1]
    assert all(torch.equal(directory.load_best()[0][name], tensor) for name, tensor in before[0].items())


def test_going_on_with_a_finished_run_keeps_where_its_time_went(toy):
    directory = run(toy())
    before = directory.read_info()
    assert before["time_per_part"]
    run(directory.settings(), resume=directory)
    assert directory.read_info() == before


def test_run_json_says_how_a_run_stands(toy):
    running = []
    settings = toy()
    broken = cut_off(settings, 30)
    assert broken.read_info()["status"] == "stopped"
    run(broken.settings(), resume=broken, look=lambda row: running.append(broken.read_info()["status"]))
    assert set(running) == {"running"}
    assert broken.read_info()["status"] == "finished"


def test_advice_is_not_given_again_by_a_run_that_goes_on(toy):
    settings = toy(stage={"steps": 400, "learning_rate": 0.5}, validation={"interval": 50})
    whole, broken = run(settings), cut_off(settings, 350)
    run(broken.settings(), resume=broken)
    advice, again = ((directory.path / "advice.txt").read_text() for directory in (whole, broken))
    assert "step 300: " in advice
    assert again == advice


def test_the_scaling_of_float16_goes_on_too(toy):
    settings = toy(run={"precision": "float16"})
    whole, broken = run(settings), cut_off(settings, 30)
    run(broken.settings(), resume=broken)
    (_, one), (_, other) = whole.load_checkpoint(), broken.load_checkpoint()
    assert (one.loss_scale, one.loss_scale_steps) == (other.loss_scale, other.loss_scale_steps)
    assert one.loss_scale_steps > 40  # it falls at first; no falls after the checkpoint of step 20


def test_only_the_leading_process_forgets_rows(toy):
    broken = cut_off(toy(), 10)
    before = (broken.path / "history.csv").read_bytes()
    assert not broken.has_checkpoint()
    settings, follows = broken.settings(), Process(torch.device("cpu"), rank=1)
    Trainer(settings, prepare_task(settings, follows.device), follows, torch.float32, broken, print)
    assert (broken.path / "history.csv").read_bytes() == before


def test_a_data_file_that_changed_is_named(toy):
    broken = cut_off(toy(), 30)
    toy.write("valid.h5", n=50, seed=9)
    with pytest.raises(TrainingError, match=r"valid\.h5: not the file that the run .* began with"):
        run(broken.settings(), resume=broken)


def test_a_hash_of_a_large_file_sees_a_changed_end(tmp_path, monkeypatch):
    monkeypatch.setattr("anna_onnx.training.checkpoint.WHOLE_HASH", 1000)
    path = tmp_path / "large"
    path.write_bytes(bytes(300_000))
    before = hash_file(path)
    path.write_bytes(bytes(299_999) + b"x")
    assert before.startswith("sampled-")
    assert hash_file(path) != before


# --- killed and interrupted processes -----------------------------------------------


def start(settings):
    """Start `anna train` in a process of its own."""
    command = [sys.executable, "-c", "from anna_onnx_cli.anna import main; main()", "train", str(settings.path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process, seconds=120):
    """Wait until something is true while a process lives."""
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.01)


def runs_of(settings):
    return sorted(settings.resolve("runs").glob("*/checkpoint.safetensors"))


def test_after_kill_9_a_run_goes_on_to_the_same_weights(toy):
    settings = toy(stage={"steps": 3000}, validation={"interval": 50}, run={"checkpoint_interval": 50})
    process = start(settings)
    wait_for(lambda: runs_of(settings), process)
    process.kill()
    process.communicate()
    _, broken = choose_run(str(settings.path), resume=True)
    state = broken.load_checkpoint()[1]
    assert 0 < state.step < 3000
    steps = [row["step"] for row in broken.read_history()]
    # The rest of the way is shortened; a constant rate does not know how long the way is.
    text = (broken.path / "params.toml").read_text().replace("steps = 3000", f"steps = {state.step + 100}")
    (broken.path / "params.toml").write_text(text)
    run(broken.settings(), resume=broken)
    rows = [row["step"] for row in broken.read_history()]
    assert rows == list(range(50, state.step + 101, 50))
    assert rows[: len(steps)][: state.step // 50] == steps[: state.step // 50]
    assert_same_end(broken, run(toy(stage={"steps": state.step + 100}, validation={"interval": 50})))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_says_how_to_go_on(toy, number):
    settings = toy(stage={"steps": 100_000}, run={"checkpoint_interval": 20}, loader={"workers": 1})
    process = start(settings)
    wait_for(lambda: runs_of(settings), process)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    _, directory = choose_run(str(settings.path), resume=True)
    step = directory.load_checkpoint()[1].step
    assert process.returncode == 1
    assert f"stopped at step {step} of 100000" in said
    assert f"anna train --resume --run {directory.path}" in said
    assert "Traceback" not in said
    assert directory.read_info()["status"] == "stopped"


# --- files --------------------------------------------------------------------


def linear_checkpoint(path):
    directory = RunDirectory(path)
    layer = torch.nn.Linear(3, 2)
    directory.save_checkpoint(layer, torch.optim.Adam(layer.parameters()), State(step=7, best_cost=0.5), {})
    return directory, layer


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    directory, layer = linear_checkpoint(tmp_path)
    tensors, state = directory.load_checkpoint()
    assert state == State(step=7, best_cost=0.5)
    assert torch.equal(tensors["network.weight"], layer.weight)


def test_a_checkpoint_that_was_cut_off_is_said_so(tmp_path):
    directory, _ = linear_checkpoint(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: not a whole checkpoint"):
        directory.load_checkpoint()


def test_when_the_disk_is_full_the_last_checkpoint_is_kept(tmp_path, monkeypatch):
    directory, layer = linear_checkpoint(tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anna_onnx.training.checkpoint.save_file", full)
    with pytest.raises(
        TrainingError, match=r"cannot be written \(No space left on device\); the last checkpoint is unt"
    ):
        directory.save_checkpoint(layer, torch.optim.Adam(layer.parameters()), State(step=8), {})
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_when_the_disk_is_full_before_the_first_checkpoint_nothing_is_left(toy, monkeypatch):
    settings = toy()

    def full(path, text, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(TrainingError, match=r"\(No space left on device\); make room and start again$"):
        run(settings)
    assert not list((toy.folder / "runs").iterdir())


def test_only_one_process_at_a_time_trains_in_a_folder(toy):
    broken = cut_off(toy(), 30)
    program = f"""
from anna_onnx.training.checkpoint import RunDirectory
with RunDirectory({str(broken.path)!r}).alone():
    print("held", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="is being trained by another process"):
            run(broken.settings(), resume=broken)
        other.stdin.write("\n")
    run(broken.settings(), resume=broken)
    assert not (broken.path / ".lock").exists()


def test_nobody_goes_on_with_a_run_that_is_being_trained(toy):
    def look(row):
        directory = RunDirectory.newest(toy.folder / "runs")
        with pytest.raises(TrainingError, match="is being trained"), directory.alone():
            pass

    run(toy(), look=look)


@pytest.mark.parametrize(
    ("left", "problem"), [(None, r"params\.toml: cannot be read"), ("[data", r"params\.toml: 1 problem\n  not TOML")]
)
def test_a_run_without_its_parameters_is_said_so(toy, left, problem):
    directory = run(toy())
    kept = directory.path / "params.toml"
    kept.unlink() if left is None else kept.write_text(left)
    with pytest.raises(AnnaError, match=f"{re.escape(str(directory.path))}.{problem}"):
        directory.settings()
    if left is None:
        with pytest.raises(TrainingError, match="no run in it"):
            RunDirectory.newest(toy.folder / "runs")


def test_a_history_that_cannot_be_written_is_said_so(tmp_path):
    (tmp_path / "history.csv").mkdir()
    with pytest.raises(TrainingError, match=r"history\.csv: cannot be written"):
        RunDirectory(tmp_path).append_history({"step": 1})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said_so(toy):
    toy.folder.chmod(0o500)
    try:
        with pytest.raises(TrainingError, match="no run can be kept there"):
            run(toy())
    finally:
        toy.folder.chmod(0o700)


def test_a_place_where_no_folder_can_be_is_said_so(toy):
    (toy.folder / "runs").write_text("a file")
    with pytest.raises(TrainingError, match="no run can be kept there"):
        run(toy())


def test_a_row_that_was_cut_off_is_forgotten(tmp_path):
    directory = RunDirectory(tmp_path)
    for step in (10, 20, 30):
        directory.append_history({"step": step, "batch_cost": 0.5})
    with (tmp_path / "history.csv").open("a") as file:
        file.write("4")
    directory.forget_after(20)
    assert [row["step"] for row in directory.read_history()] == [10, 20]


@pytest.mark.parametrize("left", ["", "step,batch_c"])
def test_a_history_that_a_power_cut_emptied_begins_again(tmp_path, left):
    directory = RunDirectory(tmp_path)
    (tmp_path / "history.csv").write_text(left)
    directory.forget_after(20)
    directory.append_history({"step": 30, "batch_cost": 0.5})
    assert directory.read_history() == [{"step": 30, "batch_cost": 0.5}]


@pytest.mark.parametrize("name", ["history.csv", "advice.txt"])
def test_lines_that_are_none_are_said_so(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0\0\0\n\0")
    with pytest.raises(TrainingError, match=rf"{name}: damaged \(.*without it the run goes on"):
        RunDirectory(tmp_path).forget_after(20)


def test_advice_that_will_come_again_is_forgotten(tmp_path):
    directory = RunDirectory(tmp_path)
    (tmp_path / "advice.txt").write_text("step 0: one\nstep 300: two: or three\nstep 350: four\nstep 40")
    directory.forget_after(300)
    assert (tmp_path / "advice.txt").read_text() == "step 0: one\nstep 300: two: or three\n"


def test_the_newest_run_is_found(tmp_path):
    with pytest.raises(TrainingError, match="no run in it; start one with 'anna train"):
        RunDirectory.newest(tmp_path)
    for i, name in enumerate(("b", "a")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text("{}")
        (folder / "params.toml").write_text("")
        os.utime(folder / "params.toml", (i, i))
    assert RunDirectory.newest(tmp_path).path.name == "a"


def test_each_parameter_file_has_runs_of_its_own(toy):
    settings = toy(stage={"steps": 10})
    other = toy.folder / "other.toml"
    other.write_text(settings.path.read_text())
    with pytest.raises(TrainingError, match=r"no run in it; start one with 'anna train .*other\.toml'"):
        choose_run(str(other), resume=True)
    first = run(settings)
    with pytest.raises(TrainingError, match=r"no run of .*other\.toml in it; name the one to go on with"):
        choose_run(str(other), resume=True)
    second = run(config.load(other))
    found = [choose_run(str(path), resume=True)[1].path for path in (settings.path, other)]
    assert found == [first.path, second.path]


@pytest.mark.parametrize("left", ["", "{}", "[]"])
def test_a_damaged_run_is_no_reason_not_to_go_on_with_another(toy, left):
    settings = toy(stage={"steps": 10})
    whole = run(settings)
    damaged = toy.folder / "runs" / "2099"
    damaged.mkdir()
    (damaged / "run.json").write_text(left)
    (damaged / "params.toml").write_text(settings.text)
    assert choose_run(str(settings.path), resume=True)[1].path == whole.path
    with pytest.raises(TrainingError, match="2099: not a run directory"):
        choose_run(str(settings.path), run=str(damaged))


def test_a_run_that_does_not_say_which_file_began_it_may_be_of_any_in_its_folder(toy):
    directory = run(toy(stage={"steps": 10}))
    directory.write_info({key: value for key, value in directory.read_info().items() if key != "params"})
    assert directory.began_with(toy.folder / "other.toml")
    assert not directory.began_with(toy.folder / "elsewhere" / "other.toml")


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path):
    paths = {RunDirectory.create(tmp_path).path for _ in range(3)}
    assert len(paths) == 3


def test_a_folder_that_is_no_run_is_said_so(tmp_path):
    with pytest.raises(TrainingError, match="not a run directory"):
        RunDirectory(tmp_path).read_info()


def test_labels_of_a_run_are_those_of_the_training(toy):
    labels = run(toy(stage={"steps": 10})).labels()
    assert [(label.name, label.unit) for label in labels] == [("teff", "K"), ("logg", "dex(cm / s2)")]
    assert np.isfinite([label.span for label in labels]).all()
