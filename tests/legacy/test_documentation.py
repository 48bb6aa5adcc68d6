"""docs/coming-from-anna.md tells the truth about every key."""

from __future__ import annotations

import tomllib
from pathlib import Path

from anna_onnx import config
from anna_onnx.legacy.parameters import KEYS, Key

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-anna.md"


def row(key: Key) -> str:
    target = ", ".join(f"`{name}`" for name in key.target.split(", ")) if key.target else "dropped"
    return f"| `{key.name}` | {target} | {key.note} |"


def test_the_table_has_every_key_as_the_converter_treats_it():
    section = PAGE.read_text(encoding="utf-8").split("### Every key\n")[1].split("###")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [row(key) for key in KEYS]


def test_the_example_is_a_parameter_file():
    example = PAGE.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    assert tomllib.loads(example)["augmentation"]["snr_template"] == "sn.robo.template"
    assert config.loads(example).steps == 15000
