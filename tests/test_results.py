"""The result table, written and read back."""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.io import fits, votable
from astropy.table import QTable, Table

from anna_onnx.errors import MissingExtraError, ResultError
from anna_onnx.flags import Flag
from anna_onnx.labels import Label
from anna_onnx.results import ResultWriter, Rows, as_qtable, join

LABELS = (Label("teff", 4000, 7000), Label("logg", 2, 5), Label("feh", -1, 0.5), Label("age", 0, 14, "Gyr", "time.age"))
META = {"model": "model.onnx", "sha256": "ab" * 32, "version": "1.0"}
ROWS = Rows(
    file=["a.fits", "b, with a comma.fits", "c.fits"],
    hdu=[0, None, 12],
    row=[None, 7, 0],
    id=["HD 1 <&>", 'Å "quoted"', ""],
    values=np.array([[5772.125, 4.4375, 0.0, 4.5], [np.nan] * 4, [6000, 3, -0.5, 1e-9]]),
    errors=np.array([[25.5, 0.125, 0.0625, 1], [np.nan] * 4, [np.inf, 1, 1, 1]]),
    snr=np.array([211.5, np.nan, np.inf]),
    coverage=np.array([1.0, 0.0, 0.5]),
    flags=np.array([0, Flag.unreadable, Flag.low_snr | Flag.partial_coverage]),
    messages=["", "not a spectrum:\nline two", "covers 50 % of 6625.0-6825.0 Å ± 1"],
)
FORMATS = ["csv", "ecsv", "fits", "vot", "xml", "h5"]


def write(path: Path, rows: Rows = ROWS, **options: Any) -> Path:
    with ResultWriter(path, LABELS, META, **options) as table:
        table.write(rows)
    return path


def interrupted(path: Path, error: type[BaseException] = KeyboardInterrupt) -> None:
    """Write rows until an interruption comes."""
    with suppress(error), ResultWriter(path, LABELS, META) as table:
        table.write(ROWS)
        raise error


def read(path: Path) -> Table:
    kind = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "fits": "fits", "h5": "hdf5"}.get(path.suffix[1:], "votable")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", units.UnitsWarning)
        return Table.read(path, format=kind, **({"path": "results"} if kind == "hdf5" else {}))


def text(value: Any) -> str:
    return "" if value is np.ma.masked else value.decode() if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    table = read(write(tmp_path / f"t.{suffix}"))
    assert table.colnames[:6] == ["file", "hdu", "row", "id", "teff", "e_teff"]
    assert table.colnames[-5:] == ["snr", "coverage", "flags", "flag_bits", "message"]
    for number, label in enumerate(LABELS):
        np.testing.assert_allclose(np.ma.filled(table[label.name], np.nan), ROWS.values[:, number], rtol=1e-6)
        np.testing.assert_allclose(np.ma.filled(table[f"e_{label.name}"], np.nan), ROWS.errors[:, number], rtol=1e-6)
    np.testing.assert_allclose(np.ma.filled(table["snr"], np.nan), ROWS.snr)
    assert list(table["flag_bits"]) == list(ROWS.flags)
    assert [text(value) for value in table["flags"]] == ["", "unreadable", "partial_coverage low_snr"]
    assert [text(value) for value in table["file"]] == ROWS.file
    assert text(table["id"][0]) == "HD 1 <&>"
    assert text(table["message"][1]) == "not a spectrum: line two"
    assert table["hdu"][2] == 12
    assert table["hdu"][1] is np.ma.masked or table["hdu"][1] == -1
    assert table["row"][2] == 0
    assert list(tmp_path.iterdir()) == [tmp_path / f"t.{suffix}"]


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "vot", "h5"])
def test_units_descriptions_and_the_model_are_in_the_header(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t.{suffix}")
    table = read(path)
    assert table["teff"].unit == units.K
    assert table["age"].unit == units.Gyr
    assert "dex" in str(table["logg"].unit)
    if suffix == "fits":
        assert "68 %" in fits.getheader(path, 1)["TCOMM6"]
    else:
        assert "68 %" in table["e_teff"].description
    if suffix == "vot":
        info = {item.name: item.value for item in votable.parse(tmp_path / "t.vot").resources[0].infos}
    else:
        info = {key.lower(): value for key, value in table.meta.items()}
    assert {key: info[key] for key in META} == META


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "vot", "h5"])
def test_an_interval_says_its_probability(tmp_path: Path, suffix: str) -> None:
    path, rows = tmp_path / f"t.{suffix}", replace(ROWS, lo=ROWS.values - 1, hi=ROWS.values + 1)
    with ResultWriter(path, LABELS, META | {"level": "0.95", "normalize": "yes"}, intervals=True) as table:
        table.write(rows)
    if suffix == "fits":
        header = fits.getheader(path, 1)
        assert header["TCOMM18"] == "lower end of the 95 % interval of teff"
        assert (header["LEVEL"], header["NORMALIZE"]) == ("0.95", "yes")
        return
    found = read(path)
    assert found["teff_lo"].description == "lower end of the 95 % interval of teff"
    if suffix != "vot":
        assert (found.meta["level"], found.meta["normalize"]) == ("0.95", "yes")


def test_ucds_are_kept(tmp_path: Path) -> None:
    field = votable.parse_single_table(write(tmp_path / "t.vot")).get_field_by_id_or_name("teff")
    assert field.ucd == "phys.temperature.effective"
    header = fits.getheader(write(tmp_path / "t.fits"), 1)
    assert header["TUCD5"] == "phys.temperature.effective"
    assert header["TUCD6"] == "stat.error;phys.temperature.effective"
    assert read(write(tmp_path / "t.ecsv"))["age"].meta["ucd"] == "time.age"


def test_a_fits_table_is_standard(tmp_path: Path) -> None:
    path = write(tmp_path / "t.fits")
    assert path.stat().st_size % 2880 == 0
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert hdus["RESULTS"].header["TNULL2"] == -1


def test_a_votable_is_valid(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        votable.parse(write(tmp_path / "t.vot"), verify="exception")


def test_csv_is_plain_and_says_missing_as_nothing_and_unknown_as_nan(tmp_path: Path) -> None:
    lines = write(tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("file,hdu,row,id,teff,e_teff,logg,e_logg,")
    assert lines[1] == "a.fits,0,,HD 1 <&>,5772.125,25.5,4.4375,0.125,0,0.0625,4.5,1,211.5,1,,0,"
    assert lines[2].startswith('"b, with a comma.fits",,7,"Å ""quoted""",nan,nan')
    assert len(lines) == 4


@pytest.mark.parametrize("suffix", FORMATS)
def test_intervals_and_the_velocity_come_last(tmp_path: Path, suffix: str) -> None:
    rows = replace(ROWS, lo=ROWS.values - 1, hi=ROWS.values + 1, rv=np.array([1.5, np.nan, -3]))
    table = read(write(tmp_path / f"t.{suffix}", rows, intervals=True, rv=True))
    assert table.colnames[-3:] == ["age_lo", "age_hi", "rv"]
    assert table["teff_lo"][0] == 5771.125
    assert table["rv"][2] == -3


@pytest.mark.parametrize("suffix", [*FORMATS, "parquet"])
def test_correlations_have_a_column_for_each_pair(tmp_path: Path, suffix: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet") if suffix == "parquet" else None
    values = np.array([[-0.5, 0.25, 0.0, 0.1, 0.2, 0.3], [np.nan] * 6, [1, -1, 0, 0, 0, 0]])
    path = write(tmp_path / f"t.{suffix}", replace(ROWS, correlations=values), covariance=True)
    # astropy would want pandas to read Parquet.
    table = read(path) if parquet is None else Table(parquet.read_table(path).to_pydict())
    pairs = ["teff_logg", "teff_feh", "teff_age", "logg_feh", "logg_age", "feh_age"]
    assert table.colnames[-6:] == [f"corr_{pair}" for pair in pairs]
    for name, column in zip(table.colnames[-6:], values.T, strict=True):
        np.testing.assert_allclose(np.ma.filled(table[name], np.nan), column, rtol=1e-6)


def test_a_correlation_has_no_unit_and_the_ucds_of_both_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "t.vot", replace(ROWS, correlations=np.zeros((3, 6))), covariance=True)
    field = votable.parse_single_table(path).get_field_by_id_or_name("corr_teff_logg")
    assert field.unit is None
    assert field.ucd == "stat.correlation;phys.temperature.effective;phys.gravity"
    assert "correlation of the errors of teff and logg" in field.description


def test_blocks_without_what_others_have_are_filled_with_nan() -> None:
    joined = join([ROWS, replace(ROWS, correlations=np.ones((3, 6)), rv=np.ones(3))])
    assert joined.correlations is not None
    assert np.isnan(joined.correlations[:3]).all()
    assert (joined.correlations[3:] == 1).all()
    assert joined.rv is not None
    assert np.isnan(joined.rv[:3]).all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_of_many_blocks_or_of_none_is_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    with ResultWriter(path, LABELS, META) as table:
        for _ in range(34):
            table.write(join([ROWS] * 100))
    assert len(read(path)) == 10_200
    with ResultWriter(path, LABELS, META):
        pass
    assert len(read(path)) == 0


def test_without_a_path_csv_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with ResultWriter(None, LABELS, META) as table:
        table.write(ROWS)
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["flags"] for row in rows] == ["", "unreadable", "partial_coverage low_snr"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_interrupted_run_can_be_resumed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    interrupted(path)
    assert not path.exists()
    part = tmp_path / f"t.{suffix}.part"
    with part.open("a") as file:
        file.write("d.fits,0,,half a li")  # as kill -9 leaves it
    with ResultWriter(path, LABELS, META, resume=True) as table:
        assert table.rows_done == 3
        places = [("a.fits", 0, None), ("b, with a comma.fits", None, 7), ("c.fits", 12, 0)]
        assert list(table.done()) == [(*place, bits) for place, bits in zip(places, ROWS.flags, strict=True)]
        table.write(ROWS)
        assert table.rows_done == 6
    assert len(read(path)) == 6
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("labels", "meta", "change"),
    [
        (LABELS, {"sha256": "cd" * 32}, f"sha256: {'ab' * 32}, now {'cd' * 32}"),
        (LABELS, {"level": "0.9"}, "level: not given, now 0.9"),
        (LABELS[:2], {}, "other columns"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(tmp_path: Path, labels: Any, meta: Any, change: str) -> None:
    path = tmp_path / "t.csv"
    interrupted(path)
    with pytest.raises(ResultError, match=rf"with other settings \({change}\)"):
        ResultWriter(path, labels, META | meta, resume=True)
    with ResultWriter(path, LABELS, META | {"model": "renamed.onnx"}, resume=True) as table:
        assert table.rows_done == 3


def test_rows_of_an_interrupted_run_are_not_given_up_unasked(tmp_path: Path) -> None:
    path, part = tmp_path / "t.csv", tmp_path / "t.csv.part"
    interrupted(path)
    before = part.read_bytes()
    with pytest.raises(ResultError, match="--resume goes on with it, or remove it"):
        ResultWriter(path, LABELS, META)
    assert part.read_bytes() == before
    part.unlink()
    with ResultWriter(path, LABELS[:2], META) as table:
        assert table.rows_done == 0


def test_a_run_that_ends_before_its_first_row_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "t.csv", None):
        with suppress(KeyboardInterrupt), ResultWriter(path, LABELS, META) as table:
            assert table.kept == ""
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_rows_that_were_written_stay_when_an_interruption_comes_before_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = ResultWriter._append

    def interrupted_append(table: ResultWriter, text: str) -> None:
        append(table, text)
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultWriter, "_append", interrupted_append)
    with suppress(KeyboardInterrupt), ResultWriter(tmp_path / "t.csv", LABELS, META) as table:
        table.write(ROWS)
    assert table.kept.endswith("t.csv.part, --resume goes on")
    monkeypatch.undo()
    with ResultWriter(tmp_path / "t.csv", LABELS, META, resume=True) as table:
        assert table.rows_done == 3


def test_two_runs_do_not_write_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with ResultWriter(path, LABELS, META) as table:
        table.write(ROWS)
        for resume in (False, True):
            with pytest.raises(ResultError, match="another run is writing it"):
                ResultWriter(path, LABELS, META, resume=resume)
    assert len(read(path)) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    program = (
        "import os, sys; from tests.test_results import *\n"
        "table = ResultWriter(sys.argv[1], LABELS, META); table.write(ROWS); os._exit(9)\n"
    )
    path = tmp_path / "t.csv"
    subprocess.run([sys.executable, "-c", program, str(path)], check=False, cwd=Path(__file__).parents[1])
    with ResultWriter(path, LABELS, META, resume=True) as table:
        assert table.rows_done == 3


def test_without_anything_to_resume_it_starts_from_the_beginning(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "t.csv", resume=True))) == 3


def test_a_finished_table_of_the_same_name_stays_until_the_new_one_is_done(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    before = path.read_bytes()
    interrupted(path, ZeroDivisionError)
    assert path.read_bytes() == before


def test_unknown_formats_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"suffix '\.xlsx', needed one of \.csv, \.ecsv"):
        ResultWriter(tmp_path / "t.xlsx", LABELS)
    (tmp_path / "file").touch()
    with pytest.raises(ResultError, match="cannot be written"):
        ResultWriter(tmp_path / "file" / "t.csv", LABELS)
    with pytest.raises(ResultError, match="two columns would be called 'snr'"):
        ResultWriter(tmp_path / "t.csv", [Label("snr", 0, 1)])


def test_a_label_called_rv_does_not_meet_the_removed_velocity(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "t.csv", [Label("rv", -100, 100)], rv=True) as table:
        assert table.schema.names[4:6] == ["rv", "e_rv"]
        assert table.schema.names[-1] == "rv_removed"


def test_odd_names_do_not_break_a_line(tmp_path: Path) -> None:
    rows = replace(ROWS, file=["a\r\nb", "bytes \udcff", "nul\0"], id=["\x1b", "\u2028", "tab\t"])
    for suffix in FORMATS:
        table = read(write(tmp_path / f"t.{suffix}", rows))
        assert len(table) == 3
        assert text(table["file"][0]).split() == ["a", "b"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_name_is_no_comment(tmp_path: Path, suffix: str) -> None:
    names = ["#1.fits", " #2.fits", 'b "#3", c.fits']
    table = read(write(tmp_path / f"t.{suffix}", replace(ROWS, file=names)))
    assert [text(name).strip() for name in table["file"]] == [name.strip() for name in names]


def test_parquet_names_the_extra_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"anna-onnx\[parquet\]"):
        write(tmp_path / "t.parquet")


def test_parquet_is_read_back(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write(tmp_path / "t.parquet"))
    assert table["hdu"].to_pylist() == [0, None, 12]
    assert table["id"].to_pylist() == list(ROWS.id)
    assert table["flag_bits"].to_pylist() == ROWS.flags.tolist()
    np.testing.assert_allclose(table["teff"].to_numpy(), ROWS.values[:, 0])
    assert table.schema.field("teff").metadata == {b"unit": b"K", b"ucd": b"phys.temperature.effective"}
    assert table.schema.metadata[b"sha256"] == META["sha256"].encode()
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_parquet_takes_as_many_rows_as_come(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with ResultWriter(tmp_path / "t.parquet", LABELS, META) as table:
        for _ in range(7000):
            table.write(ROWS)
    found = parquet.ParquetFile(tmp_path / "t.parquet")
    assert found.metadata.num_rows == 21_000
    assert found.metadata.num_row_groups == 3  # so that neither writing nor reading takes the whole in memory
    assert found.read(["file"])["file"].to_pylist() == list(ROWS.file) * 7000


def test_python_gets_a_table_with_units() -> None:
    table = as_qtable(replace(ROWS, rv=np.zeros(3)), LABELS, META)
    assert isinstance(table, QTable)
    assert table["teff"][0] == 5772.125 * units.K
    assert table["logg"].unit == units.Unit("dex(cm / s2)")
    assert table["e_logg"].unit == units.dex
    assert table["e_logg"][0].value == 0.125
    assert table["rv"].unit == units.km / units.s
    assert table["hdu"].mask.tolist() == [False, True, False]
    assert table["teff"].info.meta["ucd"] == "phys.temperature.effective"
    assert table.meta == META
    correlated = as_qtable(replace(ROWS, correlations=np.full((3, 6), 0.5)), LABELS)
    assert correlated["corr_feh_age"].tolist() == [0.5] * 3


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "h5"])
def test_csv_ecsv_and_hdf5_need_no_astropy(tmp_path: Path, suffix: str) -> None:
    program = (
        "import sys; sys.modules['astropy'] = None\n"
        "from anna_onnx.results import ResultWriter\n"
        f"with ResultWriter({str(tmp_path / f't.{suffix}')!r}, []): pass\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / f"t.{suffix}").exists()


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "vot", "h5"])
def test_a_header_bears_odd_names(tmp_path: Path, suffix: str) -> None:
    with ResultWriter(tmp_path / f"t.{suffix}", LABELS, {"model": 'a: "b", {c} Å 😀\udcff\x85'}) as table:
        table.write(ROWS)
    found = read(tmp_path / f"t.{suffix}").meta
    assert suffix in ("fits", "vot") or text(found["model"]).rstrip() == 'a: "b", {c} Å 😀'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "t.csv", LABELS) as table:
        table.write(ROWS)
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            os.dup2(full.fileno(), table._file.fileno())
        with pytest.raises(ResultError, match="No space left"):
            table.write(ROWS)
