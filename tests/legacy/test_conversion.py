"""The command ``anna convert``: one door for every file of the old ANNA."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from anna_onnx.errors import LegacyError
from anna_onnx.legacy import Options, convert, identify
from anna_onnx.trainingset import TrainingSet
from anna_onnx_cli.anna import main


@pytest.fixture
def old(shared):
    return shared / "legacy"


@pytest.fixture
def binary(tmp_path):
    path = tmp_path / "old.bin"
    np.array([3, 2, 6000, 6001, 6002, *(1, 5000, 4, 7, 1, 1, 1), *(2, 6000, 3, 8, 1, 0.5, 1)], float).tofile(path)
    return path


def test_files_are_known_by_their_content(shared, old):
    assert identify(shared / "valid_1000.bin") == "binary training file"
    assert identify(shared / "grid_6619_6831.h5") == "training set in HDF5"
    assert identify(old / "ANNA.param") == "ANNA.param"
    assert identify(old / "frozen.model") == "frozen.model"


def test_names_come_from_the_option_or_are_numbered(binary, tmp_path):
    convert(binary, tmp_path / "new.h5", Options(labels=["temperature", "gravity"]))
    assert TrainingSet.open(tmp_path / "new.h5").label_names == ("teff", "logg")
    convert(binary, tmp_path / "new.h5", Options(labels=["temperature", "gravity"], keep_names=True))
    assert TrainingSet.open(tmp_path / "new.h5").label_names == ("temperature", "gravity")
    assert any("label_0" in note for note in convert(binary, tmp_path / "new.h5"))


def test_names_and_ranges_come_from_the_parameter_file(binary, tmp_path):
    params = tmp_path / "ANNA.param"
    params.write_text("NUM_OUTS: 2\nOUTPUT_NAMES: temperature, gravity\nMIN_PARAMS: 4000, 2\nMAX_PARAMS: 7000, 5\n")
    convert(binary, tmp_path / "new.h5", Options(params=params))
    assert TrainingSet.open(tmp_path / "new.h5").label_names == ("teff", "logg")


def test_the_assumed_medium_is_told(binary, tmp_path):
    assert any("--medium" in note for note in convert(binary, tmp_path / "new.h5"))
    assert not any("--medium" in note for note in convert(binary, tmp_path / "new.h5", Options(medium="vacuum")))
    assert TrainingSet.open(tmp_path / "new.h5").grid.medium == "vacuum"


def test_a_wrong_suffix_says_the_right_one(binary, tmp_path):
    with pytest.raises(LegacyError, match=r"binary training file, which becomes a file \*\.h5, not new\.toml"):
        convert(binary, tmp_path / "new.toml")


def test_a_file_is_not_replaced_by_itself(binary, tmp_path):
    convert(binary, tmp_path / "new.h5")
    (tmp_path / "new.h5").rename(tmp_path / "new.bin")
    with pytest.raises(LegacyError, match="would replace the old one"):
        convert(tmp_path / "new.bin", tmp_path / "new.bin")


def test_frozen_model_needs_its_parameters(old, tmp_path):
    with pytest.raises(LegacyError, match=r"--params ANNA\.param and --wavelengths"):
        convert(old / "frozen.model", tmp_path / "model.onnx")


def test_the_command_prints_what_it_did(binary, tmp_path):
    result = CliRunner().invoke(main, ["convert", str(binary), str(tmp_path / "new.h5"), "--labels", "teff, logg"])
    assert result.exit_code == 0, result.output
    assert "2 spectra" in result.output
    assert result.output.endswith("new.h5 written\n")


def test_the_command_fails_in_one_line(binary, tmp_path):
    binary.write_bytes(binary.read_bytes()[:-4])
    result = CliRunner().invoke(main, ["convert", str(binary), str(tmp_path / "new.h5")])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


def test_a_parameter_file_that_may_have_been_edited_is_not_replaced_unasked(shared, tmp_path):
    new = tmp_path / "params.toml"
    new.write_text("# mine\n", encoding="utf-8")
    command = ["convert", str(shared / "legacy" / "ANNA.param"), str(new)]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, new.read_text(encoding="utf-8")) == (1, "# mine\n")
    assert "is there already; --force replaces it" in result.stderr
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0
