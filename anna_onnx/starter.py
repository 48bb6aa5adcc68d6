"""The commented parameter file that ``anna init`` writes: our best recipe for a training set."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from anna_onnx.errors import AnnaError
from anna_onnx.files import write_text


def write_starter(path: Path, *, steps: int | None = None, force: bool = False) -> None:
    """Write a starter file.

    Parameters
    ----------
    path : Path
    steps : int, optional
        In place of the recipe's number of steps.
    force : bool
        Replace a file that is there.

    Raises
    ------
    AnnaError
        If the file is there already, or cannot be written.
    """
    if path.exists() and not force:
        raise AnnaError(f"{path}: is there already; --force replaces it")
    text = resources.files("anna_onnx.data").joinpath("starter.toml").read_text(encoding="utf-8")
    if steps is not None:
        text = re.sub(r"(?m)^(steps = )\d+ *", lambda found: f"{found[1]}{steps}".ljust(len(found[0])), text)
    write_text(path, text)
