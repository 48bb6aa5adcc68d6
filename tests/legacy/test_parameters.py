"""ANNA.param of both dialects: every key understood, every problem named with its line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna_onnx import config
from anna_onnx.errors import LegacyError
from anna_onnx.legacy.parameters import KEYS, read_parameters, standard_names
from anna_onnx.legacy.translation import convert_parameters

# The parameters of the manual's tutorial, in its dialect: no OUTPUT_NAMES, DEBUG_MODE and SINGLE_MS_MODE.
MANUAL = """\
#######################
# TRAINING PARAMETERS #
#######################

NUM_PX: 1001
CONV1_SHAPE: 1, 45, 1, 10
FC1_OUTDIM: 128
FC2_OUTDIM: 64
NUM_OUTS: 5
LEARN_RATE1: 5e-5
NUM_TRAIN_ITERS1: 13000
BATCH_SIZE1: 100
KEEP_PROB1: 0.8
DO_TRAIN2: YES
LEARN_RATE2: 1e-6
NUM_TRAIN_ITERS2: 2000
BATCH_SIZE2: 50
KEEP_PROB2: 1.0
PREPROCESS_TRAIN: YES
REL_CONT_E_TRAIN: -0.010, 0.010
SN_RANGE_TRAIN: 175.0, 250.0
SN_TEMPLATE: sn.robo.template
NUM_FETCH: 1000
TRAINING_DATA: allspec_test_200_600
SAVE_LOC: ../repo_runfiles/example_model/
MIN_PARAMS: 4000.0, 2.7, -0.5, 0.0, 0.0
MAX_PARAMS: 7000.0, 4.8, 0.2, 3.0, 40.0
SAMPLE_INTERVAL: 50
PP_THREADS: 1
MAX_PP_DEPTH: 200000
LOG_LOC: ../repo_runfiles/
TIMELINE_OUTPUT: NO
TBOARD_OUTPUT: YES
TRAINING_XVAL: YES
XVAL_DATA: allspec_test_200_600
XVAL_SIZE: 500
XV_THREADS: 1
PREPROCESS_XVAL: YES
EARLY_STOP: YES
ES_SAMPLE: 100
TEST_MODEL_LOC: ../repo_runfiles/example_model/
TEST_SAVE_LOC: ../repo_runfiles/
TESTING_DATA: allspec_test_200_600
PREPROCESS_TEST: YES
REL_CONT_E_TEST: -0.010, 0.010
SN_RANGE_TEST: 175.0, 250.0
SN_TEMPLATE_TEST: sn.robo.template
DEBUG_MODE: NO
DEBUG_DATA: allspec_test_200_600
SINGLE_MS_MODE: YES
MS_FITS_IMAGE: jun2011_3133.fits
WAVE_TEMPLATE: wavelength.template
INFER_MODEL_LOC: ../repo_runfiles/example_model/
INFER_SAVE_LOC: ../repo_runfiles/
"""


def written(folder: Path, *replacements: tuple[str, str]) -> Path:
    """The manual's file with some pieces of it replaced."""
    text = MANUAL
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path = folder / "ANNA.param"
    path.write_text(text, encoding="utf-8")
    return path


def converted(folder: Path, *replacements: tuple[str, str]) -> config.Config:
    convert_parameters(written(folder, *replacements), folder / "params.toml")
    return config.load(folder / "params.toml")


def test_the_manuals_recipe_arrives_whole(tmp_path):
    new = converted(tmp_path)
    assert new.data.train == ("allspec_test_200_600",)
    assert (new.data.validation, new.data.validation_size) == ("allspec_test_200_600", 500)
    assert new.network.sizes == config.Anna(kernel=45, filters=10, fc1=128, fc2=64)
    assert not new.network.standardize
    assert new.labels.names == ("teff", "logg", "feh", "vmic", "vsini")
    assert new.labels.units == ("K", "dex(cm / s2)", "dex", "km / s", "km / s")
    assert new.labels.low == (4000, 2.7, -0.5, 0, 0)
    assert new.labels.high == (7000, 4.8, 0.2, 3, 40)
    assert new.stage == (
        config.Stage(learning_rate=5e-5, steps=13000, batch_size=100, keep_probability=0.8),
        config.Stage(learning_rate=1e-6, steps=2000, batch_size=50, keep_probability=1.0),
    )
    assert (new.augmentation.snr, new.augmentation.snr_template) == ((175, 250), "sn.robo.template")
    assert new.augmentation.continuum_offset == (-0.01, 0.01)
    assert not new.augmentation.legacy_noise
    assert new.validation == config.Validation(interval=50, patience=100, augment=True)
    assert new.run.directory == "../repo_runfiles/example_model/"
    assert (new.run.tensorboard, new.run.trace) == (True, False)


def test_the_file_of_the_last_release_converts(shared, tmp_path):
    convert_parameters(shared / "legacy" / "ANNA.param", tmp_path / "params.toml")
    new = config.load(tmp_path / "params.toml")
    assert new.labels.names == ("teff", "logg", "feh", "vmic", "vsini")
    assert new.resolve(new.data.train[0]).resolve() == (shared / "legacy" / "train_5000.bin").resolve()
    assert [stage.steps for stage in new.stage] == [4000, 600]


def test_the_report_names_every_key(tmp_path):
    report = convert_parameters(written(tmp_path), tmp_path / "params.toml")
    for line in MANUAL.splitlines():
        if ":" in line:
            assert sum(text.split()[0] == line.split(":")[0] for text in report) == 1
    assert any("legacy_noise = true" in text for text in report)


def test_every_key_goes_somewhere_or_says_why_not():
    for key in KEYS:
        assert key.target or key.note
    assert len({key.name for key in KEYS}) == len(KEYS)


def test_targets_exist_in_the_new_file():
    tables = {"data", "labels", "network", "augmentation", "stage", "validation", "run"}
    kinds = {
        "data": config.Data,
        "labels": config.Labels,
        "network": config.Anna,
        "augmentation": config.Augmentation,
        "stage": config.Stage,
        "validation": config.Validation,
        "run": config.Run,
    }
    for key in KEYS:
        for target in key.target.split(", "):
            table, _, name = target.partition(".")
            if table in tables and name:
                assert hasattr(kinds[table](), name), target


@pytest.mark.parametrize(
    ("switch", "commented"),
    [
        ("TRAINING_XVAL", ("validation", "validation_size")),
        ("PREPROCESS_TRAIN", ("snr", "snr_template", "continuum_offset")),
        ("EARLY_STOP", ("patience",)),
    ],
)
def test_what_is_switched_off_is_commented_out(tmp_path, switch, commented):
    new = converted(tmp_path, (f"{switch}: YES", f"{switch}: NO"))
    assert new.validation.patience == (0 if switch == "EARLY_STOP" else 100)
    assert (new.data.validation is None) == (switch == "TRAINING_XVAL")
    assert (new.augmentation == config.Augmentation()) == (switch == "PREPROCESS_TRAIN")
    lines = (tmp_path / "params.toml").read_text(encoding="utf-8").splitlines()
    for name in commented:
        assert any(line.startswith(f"# {name} = ") for line in lines)


def test_no_second_stage_unless_asked_for(tmp_path):
    assert len(converted(tmp_path, ("DO_TRAIN2: YES", "DO_TRAIN2: NO")).stage) == 1


def test_file_names_stay_with_the_old_file(tmp_path):
    (tmp_path / "old").mkdir()
    convert_parameters(written(tmp_path / "old"), tmp_path / "new" / "params.toml")
    new = config.load(tmp_path / "new" / "params.toml")
    assert new.data.train == ("../old/allspec_test_200_600",)
    assert new.augmentation.snr_template == "../old/sn.robo.template"


def test_old_names_are_kept_on_request(tmp_path):
    path = written(tmp_path, ("NUM_OUTS: 5\n", "NUM_OUTS: 5\nOUTPUT_NAMES: temperature, gravity, [Fe/H], vt, rotvel\n"))
    convert_parameters(path, tmp_path / "params.toml", keep_names=True)
    assert config.load(tmp_path / "params.toml").labels.names == ("temperature", "gravity", "FeH", "vt", "rotvel")
    convert_parameters(path, tmp_path / "params.toml")
    assert config.load(tmp_path / "params.toml").labels.names == ("teff", "logg", "feh", "vmic", "vsini")


def test_names_can_be_given(tmp_path):
    convert_parameters(written(tmp_path), tmp_path / "params.toml", ["teff", "logg", "mh", "alpha", "vsini"])
    assert config.load(tmp_path / "params.toml").labels.names == ("teff", "logg", "mh", "alpha", "vsini")
    with pytest.raises(LegacyError, match="NUM_OUTS is 5, but 1 names"):
        convert_parameters(written(tmp_path), tmp_path / "params.toml", ["teff"])


def test_names_must_stay_different():
    with pytest.raises(LegacyError, match="'temp' and 'temperature' are both teff"):
        standard_names(["temp", "temperature"])
    with pytest.raises(LegacyError, match=r"'\[/\]'"):
        standard_names(["[/]"])


def test_all_problems_come_together_with_their_lines(tmp_path):
    path = written(
        tmp_path,
        ("NUM_PX: 1001", "NUM_PX: many"),
        ("FC1_OUTDIM: 128", "FC1_OUTDIMS: 128"),
        ("LEARN_RATE1: 5e-5", "LEARN_RATE1:"),
        ("DO_TRAIN2: YES", "DO_TRAIN2: maybe"),
        ("SN_RANGE_TRAIN: 175.0, 250.0", "SN_RANGE_TRAIN: 250.0, 175.0"),
        ("MIN_PARAMS: 4000.0, 2.7, -0.5, 0.0, 0.0", "MIN_PARAMS: 4000.0, 2.7"),
        ("TBOARD_OUTPUT: YES", "TBOARD_OUTPUT YES"),
    )
    with pytest.raises(LegacyError) as caught:
        read_parameters(path)
    assert str(caught.value).splitlines() == [
        f"{path}: 7 problems",
        "  line 5: NUM_PX: 'many', needed a whole number above zero",
        "  line 7: FC1_OUTDIMS: unknown key; did you mean 'FC1_OUTDIM'?",
        "  line 10: LEARN_RATE1: no value behind the colon",
        "  line 14: DO_TRAIN2: 'maybe', needed YES or NO",
        "  line 21: SN_RANGE_TRAIN: '250.0, 175.0', needed two numbers, the lower one first",
        "  line 26: MIN_PARAMS: 2 items, NUM_OUTS says 5",
        "  line 33: 'TBOARD_OUTPUT YES': needed KEY: value",
    ]


def test_what_training_needs_must_be_there(tmp_path):
    path = written(
        tmp_path,
        ("FC2_OUTDIM: 64\n", ""),
        ("XVAL_DATA: allspec_test_200_600\n", ""),
        ("1, 45, 1, 10", "1, 44, 1, 10"),
    )
    with pytest.raises(LegacyError) as caught:
        convert_parameters(path, tmp_path / "params.toml")
    assert str(caught.value).splitlines()[1:] == [
        "  FC2_OUTDIM: missing",
        "  line 6: CONV1_SHAPE: a kernel of 44 pixels, needed an odd number: take 43 or 45, for a kernel with a middle",
        "  line 33: TRAINING_XVAL: YES, but XVAL_DATA is missing",
    ]
    assert not (tmp_path / "params.toml").exists()


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "1e999", "0x10", "five"])
def test_a_learning_rate_must_be_a_positive_number(tmp_path, value):
    with pytest.raises(LegacyError, match="line 10: LEARN_RATE1"):
        read_parameters(written(tmp_path, ("LEARN_RATE1: 5e-5", f"LEARN_RATE1: {value}")))


def test_a_key_may_stand_once(tmp_path):
    with pytest.raises(LegacyError, match="line 6: NUM_PX: again, line 5 has it already"):
        read_parameters(written(tmp_path, ("NUM_PX: 1001\n", "NUM_PX: 1001\nNUM_PX: 1002\n")))


def test_windows_files_read_alike(tmp_path):
    path = written(tmp_path)
    expected = read_parameters(path).values
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_parameters(path).values == expected
    path.write_bytes(path.read_bytes()[3:] + "# gemessen am 3. März\r\n".encode("latin-1"))
    assert len(read_parameters(path).values) == len(expected)


def test_windows_paths_keep_their_colon(tmp_path):
    path = written(tmp_path, ("TRAINING_DATA: allspec_test_200_600", r"TRAINING_DATA: C:\data\train"))
    assert read_parameters(path).values["TRAINING_DATA"] == r"C:\data\train"
    convert_parameters(path, tmp_path / "params.toml")
    assert config.load(tmp_path / "params.toml").data.train == (r"C:\data\train",)


@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "ANNA.param"
    path.write_text(text, encoding="utf-8")
    # A single right line, such as "TRAINING_XVAL: NO", is read; anything wrong is a LegacyError and nothing else.
    with contextlib.suppress(LegacyError):
        read_parameters(path)
