"""``anna-lite`` as people type it: what is written where, and the exit status."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from anna_onnx.bundle import Bundle, write
from anna_onnx.trainingset import TrainingSetWriter
from anna_onnx_cli.lite import main
from tests import tiny
from tests.readers.files import table, write_hdus

approx = pytest.approx
ROOT = Path(__file__).parents[1]
RUN = "from anna_onnx_cli.lite import main; main()"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    tiny.bundle(path)
    return str(path)


@pytest.fixture(scope="module")
def correlated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that infers the full covariance."""
    path = tmp_path_factory.mktemp("correlated") / "correlated.onnx"
    write(path, tiny.correlated_model().SerializeToString(), tiny.sidecar())
    return str(path)


@pytest.fixture
def stars(tmp_path: Path) -> list[str]:
    """Three text spectra whose temperatures are 4900, 4800 and 4700 K."""
    return [str(tiny.write_star(tmp_path / f"{i}.txt", blue=1 - i / 10)) for i in (1, 2, 3)]


def lite(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=stdin)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_labels_on_standard_output(model: str, stars: list[str]) -> None:
    result = lite("infer", model, *stars)
    assert result.exit_code == 0, result.output
    rows = rows_of(result.stdout)
    assert [row["file"] for row in rows] == stars
    assert [float(row["teff"]) for row in rows] == approx([4900, 4800, 4700], abs=0.1)
    assert "3 spectra" in result.stderr


@pytest.mark.filterwarnings("ignore:'dex:astropy.units.UnitsWarning")  # the FITS standard lacks it, the field does not
@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".fits", ".vot", ".h5", ".parquet"])
def test_every_format_of_table(model: str, stars: list[str], tmp_path: Path, suffix: str) -> None:
    from astropy.table import Table

    parquet = pytest.importorskip("pyarrow.parquet") if suffix == ".parquet" else None
    output = tmp_path / f"labels{suffix}"
    result = lite("infer", model, *stars, "-o", str(output), "--level", "0.9")
    assert result.exit_code == 0, result.output
    # astropy would want pandas to read Parquet.
    table = Table.read(output) if parquet is None else Table(parquet.read_table(output).to_pydict())
    assert list(table["teff"]) == approx([4900, 4800, 4700], abs=0.1)
    assert (table["teff_hi"] > table["teff"]).all()
    assert [path.name for path in tmp_path.glob("*labels*")] == [output.name]


def test_covariance_adds_the_correlations_that_python_gets_too(correlated: str, stars: list[str]) -> None:
    rows = rows_of(lite("infer", correlated, *stars, "absent.fits", "--covariance").stdout)
    assert list(rows[0])[-1] == "corr_teff_logg"
    found = [float(row["corr_teff_logg"]) for row in rows]
    assert found[:3] == approx([-0.5 * 0.95, -0.5 * 0.9, -0.5 * 0.85], rel=1e-3)  # of the mean flux
    assert np.isnan(found[3])
    assert Bundle.load(correlated).infer(stars, covariance=True)["corr_teff_logg"].tolist() == approx(found[:3])
    assert "corr_teff_logg" not in Bundle.load(correlated).infer(stars).colnames


def test_a_table_says_what_was_asked_for(model: str, stars: list[str], tmp_path: Path) -> None:
    from astropy.table import Table

    output = tmp_path / "labels.ecsv"
    said = {"level": "0.9", "normalize": "yes", "rv": "0.0", "medium": "air", "columns": "1,2"}
    words = ["--level", "0.9", "--normalize", "--rv", "0", "--medium", "air", "--columns", "1,2"]
    assert lite("infer", model, *stars, "-o", str(output), *words).exit_code == 0
    table = Bundle.load(model).infer(stars, level=0.9, normalize=True, rv=0.0, medium="air", columns=(1, 2))
    for found in (Table.read(output), table):
        assert {key: value for key, value in found.meta.items() if key not in ("model", "sha256", "version")} == said
        assert found["teff_lo"].info.description == "lower end of the 90 % interval of teff"


def test_one_bad_file_never_stops_the_others(model: str, stars: list[str], tmp_path: Path) -> None:
    (tmp_path / "junk.fits").write_bytes(b"SIMPLE  =                    T" + b" " * 5000)
    result = lite("infer", model, stars[0], str(tmp_path / "junk.fits"), str(tmp_path / "absent.fits"), stars[1])
    assert result.exit_code == 1
    rows = rows_of(result.stdout)
    assert [row["flags"].split()[0] for row in rows[1:3]] == ["unreadable", "unreadable"]
    assert [float(row["teff"]) for row in (rows[0], rows[3])] == approx([4900, 4800], abs=0.1)
    assert "2 could not be inferred" in result.stderr


def test_a_spectrum_elsewhere_is_a_failure_too(model: str, tmp_path: Path) -> None:
    path = tiny.write_star(tmp_path / "red.txt", wavelength=np.arange(8000.0, 8050))
    result = lite("infer", model, str(path))
    assert result.exit_code == 1
    assert rows_of(result.stdout)[0]["teff"] == "nan"


@pytest.mark.parametrize(
    "arguments",
    [
        ["infer"],
        ["infer", "model.onnx"],
        ["infer", "model.onnx", "star.txt", "--medium", "water"],
        ["infer", "model.onnx", "star.txt", "--level", "95"],
        ["infer", "model.onnx", "star.txt", "--device", "tpu"],
        ["infer", "model.onnx", "star.txt", "--no-such-option"],
        ["inspect"],
        ["reduce", "star.fits"],
    ],
)
def test_wrong_usage_has_status_2(arguments: list[str]) -> None:
    assert lite(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["star.txt", "-o", "labels.xlsx"], "suffix '.xlsx'"),
        (["star.txt", "--rv", "fast"], "--rv fast: needed a number"),
        (["star.txt", "--rv", "auto"], "no mean spectrum"),
        (["star.txt", "--correct-trends"], "no residual trends"),
        (["star.txt", "--covariance"], "tiny: infers no covariance"),
        (["star.txt", "--resume"], "needs -o"),
        (["star.txt", "--explain", ""], "needed the name of a folder"),
        (["star.txt", "--explain", "star.txt/pictures", "-o", "labels.csv"], "pictures: cannot be written"),
        (["star.txt", "--scheduler", "foo", "-o", "labels.csv"], ""),
        (["star.txt", "--device", "coreml"], "has only cpu"),
        (["@absent.txt"], "absent.txt: no such file, needed a list of files"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(
    model: str, arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_star(tmp_path / "star.txt")
    result = lite("infer", model, *arguments)
    assert result.exit_code == 1
    assert why in result.stderr
    assert not isinstance(result.exception, Exception)  # SystemExit is none
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["star.txt"]


def test_pictures_that_are_interrupted_leave_the_table_complete(
    model: str, stars: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anna_onnx.explanation.draw", interrupt)
    output, pictures = tmp_path / "labels.csv", tmp_path / "pictures"
    result = lite("infer", model, *stars, "-o", str(output), "--explain", str(pictures))
    assert (result.exit_code, len(rows_of(output.read_text(encoding="utf-8")))) == (1, 3)
    assert result.stderr == f"Error: interrupted; the table {output} is complete, pictures in {pictures} are not\n"


@pytest.mark.parametrize(
    ("output", "taken"),
    [
        ("star.csv", "a file that it is made from"),
        ("link.csv", "a file that it is made from"),
        ("list.csv", "a file that it is made from"),
        ("kept.csv", "a file that it is made from"),
        ("tiny.h5", "the model's sidecar"),
        ("alone.h5", "the model's sidecar"),
    ],
)
def test_a_table_never_replaces_what_it_is_made_from(tmp_path: Path, output: str, taken: str) -> None:
    tiny.bundle(tmp_path / "tiny.onnx")
    (tmp_path / "alone.onnx").write_bytes((tmp_path / "tiny.onnx").read_bytes())  # no sidecar beside it
    star, kept = tiny.write_star(tmp_path / "star.csv"), tiny.write_star(tmp_path / "kept.csv.part")
    (tmp_path / "link.csv").hardlink_to(star)
    (tmp_path / "list.csv").write_text(f"{star}\n{kept}\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    model = tmp_path / ("alone.onnx" if output == "alone.h5" else "tiny.onnx")
    result = lite("infer", str(model), f"@{tmp_path / 'list.csv'}", "-o", str(tmp_path / output))
    assert result.exit_code == 1
    assert f"is the name of {taken}, needed another one" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = lite("infer", "fgk-of-no-release", "star.txt")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: fgk-of-no-release: no such file")


def test_a_hostile_model_writes_no_control_characters(tmp_path: Path) -> None:
    evil = {"run": "\x1b]0;owned\x07\x1b[2J"}
    write(tmp_path / "evil.onnx", tiny.network(), tiny.sidecar(provenance=evil))
    result = lite("info", str(tmp_path / "evil.onnx"))
    assert result.exit_code == 0
    assert "\x1b" not in result.output


def test_a_list_in_a_file_or_on_standard_input_stands_for_its_files(
    model: str, stars: list[str], tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(stars) + "\n\n", encoding="utf-8")
    expected = lite("infer", model, *stars).stdout
    assert lite("infer", model, f"@{listed}").stdout == expected
    assert lite("infer", model, "-", stdin=listed.read_text(encoding="utf-8")).stdout == expected
    listed.write_text("\r\n".join(stars), encoding="utf-8-sig", newline="")  # as editors of Windows write it
    assert lite("infer", model, f"@{listed}").stdout == expected


def test_what_is_no_list_of_files_is_refused_with_the_reason(model: str, stars: list[str], tmp_path: Path) -> None:
    assert "list is empty" in lite("infer", model, "-", stdin="\n").stderr
    assert f"{tmp_path}: not a list of files (" in lite("infer", model, f"@{tmp_path}").stderr
    listed = tmp_path / "list.txt"
    listed.write_text(stars[0], encoding="utf-16")
    assert "holds zero bytes" in lite("infer", model, f"@{listed}").stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are Unicode there")
def test_lists_hold_names_of_any_bytes(model: str, tmp_path: Path) -> None:
    star = tiny.write_star(tmp_path / "Å \udcff.txt")
    listed = tmp_path / "list.txt"
    listed.write_bytes(os.fsencode(star) + b"\n")
    for result in (
        lite("infer", model, f"@{listed}"),
        CliRunner().invoke(main, ["infer", model, "-"], os.fsencode(star)),
    ):
        assert result.exit_code == 0, result.stderr
        assert result.stdout == lite("infer", model, str(star)).stdout


def test_an_interrupted_run_is_resumed(
    correlated: str, stars: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "labels.csv"
    n = 700
    many = tmp_path / "many.h5"
    with TrainingSetWriter(many, tiny.GRID, ["teff"], ["K"], n) as writer:
        writer.append(np.ones((n, 50)) - np.arange(n)[:, None] / 2000, np.zeros((n, 1)), np.arange(n, dtype=np.float64))
    files = [stars[0], stars[1], stars[1], str(many), stars[2]]

    def infer(files: list[str], output: Path, *options: str) -> Result:
        return lite("infer", correlated, *files, "-o", str(output), "--covariance", *options)

    assert infer(files, whole).exit_code == 0

    from anna_onnx.results import ResultWriter

    write_rows, calls = ResultWriter.write, []

    def fail_late(self: Any, rows: Any) -> None:
        calls.append(len(rows))
        if len(calls) == 4:
            raise KeyboardInterrupt
        write_rows(self, rows)

    monkeypatch.setattr(ResultWriter, "write", fail_late)
    interrupted = infer(files, output)
    assert interrupted.exit_code == 1
    assert "--resume goes on" in interrupted.stderr
    assert not output.exists()
    monkeypatch.setattr(ResultWriter, "write", write_rows)
    other = infer(files[1:], output, "--resume")
    assert "resume with the same files" in other.stderr
    plain = lite("infer", correlated, *files, "-o", str(output), "--resume")
    assert "with other settings (covariance: yes, now not given)" in plain.stderr
    others = infer(files, output, "--resume", "--rv", "0", "--medium", "air")
    assert "with other settings (rv: not given, now 0.0; medium: not given, now air)" in others.stderr
    result = infer(files, output, "--resume")
    assert result.exit_code == 0, result.stderr
    assert output.read_text(encoding="utf-8") == whole.read_text(encoding="utf-8")


@pytest.mark.parametrize("n_done", range(1, 8))
def test_a_resumed_run_repeats_no_row_and_counts_those_of_the_interrupted_one(
    model: str, stars: list[str], tmp_path: Path, n_done: int
) -> None:
    absent = str(tmp_path / "absent \udcff.fits")  # a byte that is not UTF-8
    files = [stars[0], absent, absent, stars[1], stars[1], absent, stars[2]]
    whole = lite("infer", model, *files, "-o", str(tmp_path / "whole.csv"))
    lines = (tmp_path / "whole.csv").read_bytes().splitlines(keepends=True)
    about = '{"columns": %s, "meta": {"sha256": "%s"}}'
    columns = json.dumps(lines[0].decode().strip().split(","))
    output = tmp_path / "labels.csv"
    Path(f"{output}.part.json").write_text(about % (columns, Bundle.load(model).sidecar.sha256), encoding="utf-8")
    Path(f"{output}.part").write_bytes(b"".join(lines[: n_done + 1]))
    result = lite("infer", model, *files, "-o", str(output), "--resume")
    assert output.read_bytes() == b"".join(lines)
    assert (result.exit_code, result.stderr) == (1, whole.stderr.replace("whole.csv", "labels.csv"))
    assert "7 spectra" in result.stderr
    assert "3 could not be inferred" in result.stderr


def test_several_processes_give_the_same_table(correlated: str, stars: list[str]) -> None:
    words = ["infer", correlated, *stars, "--covariance", "--processes"]
    one = lite(*words, "1").stdout
    command = [sys.executable, "-c", RUN, *words, "2"]
    two = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert two.stdout == one


def test_inspect_says_what_was_assumed(tmp_path: Path, stars: list[str]) -> None:
    (tmp_path / "junk.txt").write_text("no numbers here", encoding="utf-8")
    result = lite("inspect", stars[0], str(tmp_path / "junk.txt"), stars[1])
    assert result.exit_code == 1
    assert f"{stars[0]}: 50 pixels, 6000.00-6049.00 Å, medium air, frame unknown, no errors, none bad" in result.stdout
    assert "    " in result.stdout
    assert f"{stars[1]}: 1 spectrum" in result.stdout
    assert "junk.txt" in result.stderr


def test_inspect_counts_no_spectra_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "pixels.csv").write_text(",0,1\n0,6600.0,1.0\n1,6600.1,1.0\n2,6600.2,1.0\n", encoding="utf-8")
    result = lite("inspect", str(tmp_path / "pixels.csv"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "counts pixels" in result.stderr


def test_inspect_shows_so_many_failures_and_counts_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anna_onnx.inspection.SHOWN", 2)
    wave = np.where(np.arange(5)[:, None] < 1, tiny.GRID.wavelength, np.nan)
    path = write_hdus(tmp_path / "stars.fits", table(wave=wave, flux=np.ones(wave.shape)))
    result = lite("inspect", str(path))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert result.stdout.endswith(f"{path}: 1 spectrum, 4 more cannot be read\n")


def test_inspect_reads_real_multispec(shared: Path) -> None:
    result = lite("inspect", str(shared / "fits" / "jun2011_3133.fits"))
    assert result.exit_code == 0
    assert "row 89 (Sky Spectra 6819f): 1921 pixels" in result.stdout
    assert "90 spectra" in result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", ["infer MODEL STAR", "info MODEL", "inspect STAR", "selftest MODEL", "--help"])
def test_output_that_finds_no_room_is_one_line(model: str, stars: list[str], words: str) -> None:
    arguments = words.replace("MODEL", model).replace("STAR", stars[0]).split()
    command = [sys.executable, "-c", "from anna_onnx_cli.lite import run; run()", *arguments]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment())
    assert result.stderr == "Error: output: cannot be written (No space left on device)\n"
    assert result.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("to_file", [True, False])
def test_a_table_on_the_terminal_has_no_progress_bar_in_it(
    model: str, stars: list[str], tmp_path: Path, to_file: bool
) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", RUN, "infer", model, *stars, *(["-o", str(tmp_path / "t.csv")] if to_file else [])]
    subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, check=True, env=environment())
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    assert ("inferring" in shown) == to_file
    assert to_file or shown.splitlines()[0].startswith("file,hdu,row")


def test_selftest_and_info(model: str, tmp_path: Path) -> None:
    assert "good" in lite("selftest", model).stdout
    assert "teff" in lite("info", model).stdout
    other = tiny.model(bias=np.array([4010, 1], np.float32)).SerializeToString()
    write(tmp_path / "off.onnx", other, tiny.sidecar())
    result = lite("selftest", str(tmp_path / "off.onnx"))
    assert result.exit_code == 1
    assert "answers differ by 2.0e-03" in result.stderr


# --- in an interpreter of its own -------------------------------------------------------------------------------------

FORBID = """
import importlib.abc, importlib.machinery, os, socket, sys

class Forbidden(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "onnx", "scipy", "matplotlib"):
            return importlib.machinery.ModuleSpec(name, self)
        if name == "onnxruntime":
            assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1", "onnxruntime without ORT_DISABLE_TELEMETRY"

    def create_module(self, spec):
        raise ImportError(f"{spec.name} is forbidden here")

def no_socket(*arguments, **keywords):
    raise AssertionError("a socket is opened")

sys.meta_path.insert(0, Forbidden())
socket.socket.__init__ = no_socket
socket.create_connection = socket.getaddrinfo = no_socket
from anna_onnx_cli.lite import main
main()
"""


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FORBID, *arguments], capture_output=True, text=True, check=False, env=environment()
    )


def test_nothing_heavy_is_imported_and_no_socket_opened(model: str, stars: list[str], tmp_path: Path) -> None:
    commands = [
        ["infer", model, *stars, "-o", str(tmp_path / "labels.fits")],
        ["info", model],
        ["selftest", model],
        ["inspect", *stars],
    ]
    for command in commands:
        result = alone(*command)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "labels.fits").exists()


def test_no_connection_is_made_by_the_system_either(model: str, stars: list[str]) -> None:
    """Ask the kernel, for onnxruntime is not Python."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("needs Linux")
    code = (
        "from anna_onnx_cli.lite import main\n"
        "import os\n"
        "main(standalone_mode=False)\n"
        "paths = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')]\n"
        "links = [os.readlink(path) for path in paths if os.path.lexists(path)]\n"
        "assert not [link for link in links if link.startswith('socket:')], links\n"
    )
    command = [sys.executable, "-c", code, "infer", model, stars[0]]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stderr


def test_help_and_version_import_neither_numpy_nor_onnxruntime() -> None:
    code = (
        "import json, sys\n"
        "from anna_onnx_cli.lite import main\n"
        "main(['infer', '--help'], standalone_mode=False)\n"
        "print(json.dumps([name for name in ('numpy', 'onnxruntime', 'h5py', 'astropy') if name in sys.modules]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert json.loads(result.stdout.splitlines()[-1]) == []


def test_the_installed_command_runs(model: str, stars: list[str]) -> None:
    command = Path(sys.executable).with_name("anna-lite")
    if not command.exists():
        pytest.skip("the project is not installed here")
    result = subprocess.run([str(command), "infer", model, *stars], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert len(rows_of(result.stdout)) == 3
