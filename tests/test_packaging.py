"""What is shipped, what it needs, and that the commands complete in a shell."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import anna_onnx
from anna_onnx import __version__
from anna_onnx.card import list_models

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "onnx", "onnxscript", "scipy", "matplotlib", "safetensors", "tensorboard")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folder_of(package: str, settings: dict[str, Any]) -> Path:
    renamed = settings["package-dir"].get(package)
    return ROOT / (renamed or package.replace(".", "/"))


def bounds(requirements: list[str]) -> dict[str, str]:
    """Return the lowest version of each requirement, however its name and sign are written."""
    found = {}
    for requirement in requirements:
        name, version = re.fullmatch(r"([\w-]+?)(?:-base)?\s*(?:>=|==)\s*([\d.]+)", requirement).groups()
        found[name] = tuple(int(part) for part in version.split(".") if int(part))
    return found


def test_every_package_is_shipped(project):
    settings = project["tool"]["setuptools"]
    shipped = {folder_of(package, settings) for package in settings["packages"]}
    written = {path.parent for top in ("anna_onnx", "cli", "models") for path in (ROOT / top).rglob("__init__.py")}
    assert shipped == written


def test_every_file_of_a_package_is_shipped(project):
    settings = project["tool"]["setuptools"]
    for package in settings["packages"]:
        patterns = ["*.py", *settings["package-data"].get(package, [])]
        for path in folder_of(package, settings).iterdir():
            if path.is_file() and not path.name.startswith("."):
                assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns), path


def test_the_recipe_needs_what_the_project_needs(project):
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    python = project["project"]["requires-python"].replace(">=", "python >=")
    assert bounds(recipe["requirements"]["run"]) == bounds([*project["project"]["dependencies"], python])
    training = bounds(project["project"]["optional-dependencies"]["train"])
    besides = bounds([line.replace("pytorch", "torch") for line in recipe["requirements"]["run_constraints"]])
    assert besides.items() <= training.items()
    commands = [line.split(" = ") for line in recipe["build"]["python"]["entry_points"]]
    assert dict(commands) == project["project"]["scripts"]


def test_recipe_citation_and_page_are_of_this_version():
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    page = json.loads((ROOT / "web" / "package.json").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == citation["version"] == page["version"] == __version__


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    workflow = ROOT / ".github" / "workflows" / "tests.yml"
    if not workflow.is_file():
        pytest.skip("no workflows here: this is no checkout")
    return yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]


def test_the_light_wheel_is_tested_on_every_system_and_python_that_is_promised(project, jobs):
    matrix = jobs["light"]["strategy"]["matrix"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["project"]["classifiers"]))
    assert matrix["python"] == promised
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    said = " ".join(step.get("run", "") for step in jobs["light"]["steps"]).split()
    assert not {"torch", "scipy", "matplotlib"} & {*said}


def test_the_oldest_versions_that_are_promised_are_tested(project, jobs):
    steps = jobs["oldest"]["steps"]
    (install,) = [step["run"] for step in steps if "pip install" in step.get("run", "")]
    tested = bounds([word for word in install.split() if re.fullmatch(r"[\w-]+==[\d.]+", word)])
    assert tested.items() >= bounds(project["project"]["dependencies"]).items()


def test_released_models_are_listed_with_what_they_do(tmp_path, monkeypatch):
    from tests import tiny

    monkeypatch.setattr("anna_onnx.bundle.MODELS", tmp_path)
    assert list_models() == "no models are released with this version"
    tiny.bundle(tmp_path / "tiny-6000.onnx")
    (tmp_path / "tiny-6000.md").write_text("# tiny-6000\n\nInfers two labels.\n\nMore.\n", encoding="utf-8")
    assert re.fullmatch(r"tiny-6000 \(0\.\d MB\)\nInfers two labels\.", list_models())


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("command", ["train", "test m.onnx d.h5", "export"])
def test_a_command_that_needs_an_extra_says_so_in_one_line(command):
    done = python(
        f"import sys; sys.modules['torch'] = None; sys.argv = 'anna {command}'.split()\n"
        "from anna_onnx_cli.anna import main; main()"
    )
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "pip install 'anna-onnx[train]'" in done.stderr


@pytest.mark.parametrize("module", ["anna_onnx", "anna_onnx_cli.anna", "anna_onnx_cli.lite"])
def test_nothing_heavy_is_imported_at_the_start(module):
    done = python(f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})")
    loaded = set(done.stdout.split())
    assert not loaded & {*HEAVY, "astropy", "h5py", "onnxruntime"}, done.stderr


def test_every_public_name_is_at_hand():
    assert [name for name in anna_onnx.__all__ if not hasattr(anna_onnx, name)] == []


def test_standard_output_is_utf8_whatever_the_code_page():
    words = "['infer', '--help']"
    done = python(
        f"import sys; from anna_onnx_cli.lite import main; main.callback = lambda: print('Ἀ'); main({words})",
        PYTHONIOENCODING="cp1252",
    )
    assert done.stdout.startswith("Ἀ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("command", ["anna", "anna-lite"])
def test_each_shell_gets_its_completion_script(command, shell):
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version, and there is none here")
    done = complete(command, f"{shell}_source")
    assert f"_{command}_completion".replace("-", "_") in done.stdout


def test_commands_are_completed():
    assert complete("anna", "bash_complete", COMP_WORDS="anna exp", COMP_CWORD="1").stdout == "plain,export\n"
    assert (
        complete("anna-lite", "bash_complete", COMP_WORDS="anna-lite se", COMP_CWORD="1").stdout == "plain,selftest\n"
    )


def test_options_and_their_choices_are_completed():
    found = complete("anna", "bash_complete", COMP_WORDS="anna export --pre", COMP_CWORD="2").stdout
    assert found == "plain,--precision\n"
    found = complete("anna", "bash_complete", COMP_WORDS="anna export --precision f", COMP_CWORD="3").stdout
    assert found.split() == ["plain,float32", "plain,float16"]


def complete(command: str, instruction: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variable = f"_{command}_COMPLETE".replace("-", "_").upper()
    program = shutil.which(command, path=str(Path(sys.executable).parent)) or command
    return subprocess.run(
        [program], capture_output=True, text=True, check=False, env={**os.environ, variable: instruction, **environment}
    )
