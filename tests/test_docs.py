"""The documentation tells the truth: tables that the code states, links, commands, parameter files, the notebook."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from anna_onnx import config
from anna_onnx_cli import anna, lite

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
PROGRAMS = {"anna": anna.main, "anna-lite": lite.main}


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load(ROOT / "docs" / "_ext" / "reference.py")
executed = load(ROOT / "docs" / "_ext" / "executed.py")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def fences(page: Path, *languages: str) -> list[str]:
    return [
        body
        for language, body in re.findall(r"^```(\w+)\n(.*?)^```$", read(page), re.M | re.S)
        if language in languages
    ]


# --- what the code states -----------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_the_code_states_is_up_to_date(page):
    assert reference.renew(read(page)) == read(page), "renew it: python docs/_ext/reference.py"


KINDS = [kind for kind in vars(config).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_parameter_is_there_with_default_and_meaning(kind):
    page = read(ROOT / "docs" / "parameters.md")
    for item in dataclasses.fields(kind):
        if "help" in item.metadata:
            row = re.escape(item.metadata["help"]).replace("<", r"\\?<")
            assert re.search(rf"^\| `{item.name}` \| .+ \| .* \| \S.* \| {row} \|$", page, re.M), item.name


def test_every_command_has_a_section():
    page = read(ROOT / "docs" / "commands.md")
    for program, group in PROGRAMS.items():
        for name in group.commands:
            assert f"\n## {program} {name}\n" in page


def test_everything_in_a_sidecar_is_described():
    h5py = pytest.importorskip("h5py")
    import io

    from anna_onnx.calibration import Calibration
    from anna_onnx.labels import Label
    from anna_onnx.novelty import Novelty
    from anna_onnx.preparation import Preparation
    from anna_onnx.resampling import Grid
    from anna_onnx.sidecar import Sidecar

    one = np.ones(1)
    sidecar = Sidecar(
        (Label("teff", 4000, 7000),),
        Preparation(Grid([5000.0, 5001.0], "air")),
        calibration=Calibration(one / 2, one, np.ones((1, 1, 1)), 9),
        novelty=Novelty(np.ones(2), np.ones((1, 2)), one, one, 0.01),
    )
    names = []
    with h5py.File(io.BytesIO(sidecar.to_bytes())) as file:
        file.visit(names.append)
    page = read(ROOT / "docs" / "formats.md").split("The sidecar,")[1]
    assert [name for name in names if name.split("/")[-1] not in page] == []


# --- links ----------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return what GitHub and MyST make of the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title.lower())).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name}: {target}"


# --- commands, parameter files, Python ----------------------------------------------


def commands(page: Path) -> list[list[str]]:
    """Return the calls of our programs in the fences of a page."""
    lines = [line for body in fences(page, "sh") for line in body.replace("\\\n", " ").splitlines()]
    shown = "\n".join(fences(page, "console")).replace("\\\n", " ")
    lines += re.findall(r"^\$ (.*)$", shown, re.M)
    calls = []
    for part in (part for line in lines for part in re.split(r"[|;&]", line)):
        words = shlex.split(part.split(" --no-python ")[-1], comments=True) if part.count('"') % 2 == 0 else []
        if words and words[0] in PROGRAMS:
            calls.append(words)
    return calls


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_have_the_options_that_are_shown(page):
    for program, *words in commands(page):
        if not words or words[0].startswith("-"):
            continue
        command = PROGRAMS[program].commands[words[0]]
        command.make_parser(click.Context(command)).parse_args(words[1:])  # raises UsageError


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_parameter_files_are_understood(page):
    for body in fences(page, "toml"):
        text = body if "[data]" in body else f'[data]\ntrain = "train.h5"\n{body}'
        config.loads(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_is_python(page):
    for body in fences(page, "python"):
        compile(body, page.name, "exec")


def test_the_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("matplotlib")
    from tests import tiny

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from astropy.io import fits

    from anna_onnx.novelty import Novelty

    flat = Novelty(np.ones(50), np.ones((1, 50)) / np.sqrt(50), np.ones(1), np.ones(1), 0.01)
    tiny.bundle(tmp_path / "model.onnx", novelty=flat)
    Path("spectra").mkdir()
    for number in range(12):
        axis = {"CRVAL1": 6000.0, "CDELT1": 1.0, "CRPIX1": 1.0, "CTYPE1": "AWAV", "CUNIT1": "Angstrom"}
        header = fits.Header({**axis, "OBJECT": f"star {number}"})
        fits.PrimaryHDU(np.ones(50, np.float32), header).writeto(f"spectra/star_{number:05d}.fits")
    notebook = json.loads(read(ROOT / "docs" / "notebooks" / "infer.ipynb"))
    namespace: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)
    assert len(namespace["table"]) == 12


# --- pages that are run ----------------------------------------------------------------

# Windows has a program of this name that is no shell, and finds it first.
needs_bash = pytest.mark.skipif(sys.platform == "win32", reason="pages are run with bash")


@needs_bash
def test_output_is_replaced_by_what_a_command_prints(tmp_path):
    page = "Say:\n\n```console\n$ echo one \\\n    two\nold\n$ echo three\n```\n"
    assert executed.execute(page, tmp_path) == page.replace("old", "one two").replace("three\n```", "three\nthree\n```")


@needs_bash
def test_a_fence_with_a_name_becomes_a_file(tmp_path):
    executed.execute("```toml\n# a.toml\nseed = 1\n```\n\n```console\n$ cat a.toml\n```\n", tmp_path)
    assert read(tmp_path / "a.toml") == "# a.toml\nseed = 1\n"


@needs_bash
def test_a_command_fails_only_where_the_page_says_so(tmp_path):
    assert "no such" in executed.execute("```console\n$ echo no such; exit 2  # exit status 2\n```\n", tmp_path)
    with pytest.raises(RuntimeError, match="exit status 1"):
        executed.execute("```console\n$ false\n```\n", tmp_path)
