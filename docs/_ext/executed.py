"""Run the commands that pages show, and put in what they really print.

The pages in `PAGES` are run one after the other, in one temporary folder, so that a
later page may use the files of an earlier one:

- in a ``console`` fence, each line that begins with ``$`` is a command for bash; what
  follows it is its output, and is replaced. A command that is to fail says so:
  ``# exit status 1``;
- a fence whose first line is ``# name.suffix`` is a file, and is written;
- any other ``python`` fence is run;
- the code cells of a notebook are run.

When the documentation is built, the pages are run and rendered with the new output. The output in
the sources is what readers on GitHub see; ``python docs/_ext/executed.py`` renews it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PAGES = (
    "tutorial.md",
    "howto/email.md",
    "howto/topcat.md",
    "howto/explain.md",
    "notebooks/infer.ipynb",
    "troubleshooting.md",
    "howto/own-grid.md",
    "howto/real-spectra.md",
    "commands.md",
)

FENCE = re.compile(r"^```(console|python|toml|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
STATUS = re.compile(r"# exit status (\d+)$")
FILE_NAME = re.compile(r"# (\S+\.\w+)\n")

# What depends on how busy the machine is (progress, written every ten seconds), and notices of torch.
NOISE = re.compile(r"^(\w+: \d+ of \d+ .*|W\d{4} .*)\n", re.MULTILINE)


def run_pages(docs: Path, folder: Path, pages: Sequence[str] = PAGES) -> Iterator[tuple[str, str]]:
    """Run pages in a folder and yield their names and texts, with the output that came.

    Raises
    ------
    RuntimeError
        If a command fails.
    """
    for name in pages:
        text = (docs / name).read_text(encoding="utf-8")
        yield name, (execute_notebook if name.endswith(".ipynb") else execute)(text, folder)


def execute(text: str, folder: Path) -> str:
    """Run what a Markdown page shows; return the page with the output that came."""
    return FENCE.sub(lambda fence: f"```{fence[1]}\n{_execute_fence(fence[1], fence[2], folder)}```", text)


def _execute_fence(language: str, body: str, folder: Path) -> str:
    if language == "console":
        return COMMAND.sub(lambda line: f"$ {line[1]}\n{_output(line[1], folder)}", body)
    if name := FILE_NAME.match(body):
        (folder / name[1]).write_text(body, encoding="utf-8")
    elif language == "python":
        _run([sys.executable, "-c", body], folder)
    return body


def _output(command: str, folder: Path) -> str:
    status = STATUS.search(command)
    printed = _run(["bash", "-c", command], folder, int(status[1]) if status else 0)
    if "```" in printed:
        raise RuntimeError(f"{command}\nprints a fence, which would end the one it stands in")
    return NOISE.sub("", printed)


def _run(words: list[str], folder: Path, status: int = 0) -> str:
    programs = Path(sys.executable).parent
    quiet = {"PYTHONWARNINGS": "ignore", "COLUMNS": "100", "OMP_NUM_THREADS": "2"}
    environment = {**os.environ, **quiet, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        words, cwd=folder, env=environment, text=True, check=False, timeout=300,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode != status:
        raise RuntimeError(f"{words[-1]}\nexit status {done.returncode}, not {status}\n{done.stdout}")
    return done.stdout


def execute_notebook(text: str, folder: Path) -> str:
    """Run the code cells of a notebook; return it with their output."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.reads(text, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    return str(nbformat.writes(notebook)) + "\n"


def setup(app: Any) -> dict[str, Any]:
    """Run the pages when Sphinx begins, and hand it their texts when it reads them."""
    texts: dict[str, str] = {}

    def run(app: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in run_pages(Path(app.srcdir), Path(folder)):
                texts[Path(name).with_suffix("").as_posix()] = text

    def hand_over(_app: Any, name: str, source: list[str]) -> None:
        source[0] = texts.get(name, source[0])

    app.connect("builder-inited", run)
    app.connect("source-read", hand_over)
    return {"parallel_read_safe": True}


def main() -> None:
    """Renew the output in the sources of all pages, or of those up to the one named."""
    docs = Path(__file__).parents[1]
    pages = PAGES[: PAGES.index(sys.argv[1]) + 1] if len(sys.argv) > 1 else PAGES
    with tempfile.TemporaryDirectory() as folder:
        for name, text in run_pages(docs, Path(folder), pages):
            (docs / name).write_text(text, encoding="utf-8")
            print(name)


if __name__ == "__main__":
    main()
