"""What is read in which process, and when."""

from pathlib import Path

import numpy as np
import pytest

from anna_onnx import pipeline
from anna_onnx.blocks import Block, Part
from anna_onnx.errors import ReadError
from anna_onnx.flags import Flag
from anna_onnx.pipeline import TRIAL_FILES
from anna_onnx.readers import ReadOptions, read_spectra
from anna_onnx.resampling import Grid
from anna_onnx.results import Done
from anna_onnx.trainingset import TrainingSetWriter
from anna_onnx.trial import begun, state, trial_of


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    """More text spectra than are read on trial."""
    rows = "".join(f"{6000 + i} 1.0\n" for i in range(50))
    paths = [tmp_path / f"{i}.txt" for i in range(TRIAL_FILES + 10)]
    for path in paths:
        path.write_text(rows, encoding="utf-8")
    return [Part(str(path)) for path in paths]


@pytest.fixture
def training_set(tmp_path: Path) -> str:
    path = tmp_path / "set.h5"
    with TrainingSetWriter(path, Grid(np.linspace(6000, 6049, 50)), ["teff"], ["K"], 2) as writer:
        writer.append(np.ones((2, 50), np.float32), np.full((2, 1), 5000.0), np.arange(2.0))
    return str(path)


def files_of(here: pipeline._Here) -> list[str]:
    blocks = list(here.blocks(ReadOptions()))
    assert all(isinstance(block, Block) for block in blocks), blocks
    return [file for block in blocks if isinstance(block, Block) for file in block.files]


def test_files_that_are_read_quickly_are_all_read_here(parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "STARTING", 1e9)
    here = pipeline._Here(parts, 2)
    assert files_of(here) == [part.file for part in parts]
    assert not here.left


def test_after_a_trial_slow_files_are_left_to_several_processes(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "STARTING", 0.0)
    here = pipeline._Here(parts, 2)
    assert files_of(here) == [part.file for part in parts[:TRIAL_FILES]]
    assert list(here.left) == parts[TRIAL_FILES:]


def test_one_process_leaves_nothing_to_others(parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "STARTING", 0.0)
    here = pipeline._Here(parts, 1)
    assert files_of(here) == [part.file for part in parts]
    assert not here.left


def test_the_trial_that_was_begun_is_the_one_that_counts(training_set: str) -> None:
    with begun(training_set):
        first = trial_of(*state(training_set))
        first.check()
        second = trial_of(*state(training_set))
        assert second is not first
        second.check()
    assert len(read_spectra(training_set)) == 2


def test_a_trial_that_nobody_asked_for_ends_with_the_block(training_set: str) -> None:
    from anna_onnx.trial import _begun

    with begun(training_set):
        (trial,) = _begun.values()
    assert not _begun
    assert trial._process.poll() is not None


def test_a_file_that_changed_since_is_tried_again(training_set: str) -> None:
    with begun(training_set):
        with Path(training_set).open("r+b") as file:
            file.seek(96)
            file.write(b"\xff" * 200)
            file.truncate(700)
        with pytest.raises(ReadError, match="damaged HDF5"):
            trial_of(*state(training_set)).check()


def test_a_file_that_failed_in_the_middle_is_not_read_again() -> None:
    parts = [Part("a.h5"), Part("b.txt")]
    rows = [Done("a.h5", None, 0, 0), Done("a.h5", None, 1, 0)]
    assert pipeline._not_done(parts, rows) == [Part("a.h5", first=2), Part("b.txt")]
    bad_row = Done("a.h5", None, 2, int(Flag.unreadable))
    assert pipeline._not_done(parts, [*rows, bad_row]) == [Part("a.h5", first=3), Part("b.txt")]
    the_rest = Done("a.h5", None, None, int(Flag.unreadable))
    assert pipeline._not_done(parts, [*rows, the_rest]) == [Part("b.txt")]
    twice = [Part("a.h5"), *parts]
    assert pipeline._not_done(twice, [the_rest, *rows]) == [Part("a.h5", first=2), Part("b.txt")]


@pytest.mark.parametrize("name", ["-", "@list.txt", "no such file", "a\0b", ""])
def test_nothing_is_begun_for_what_is_no_training_set(name: str) -> None:
    from anna_onnx.trial import _begun

    with begun(name):
        assert not _begun
