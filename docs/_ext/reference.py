"""Write the parts of pages that the code states itself: parameters, columns, flags, layouts of files.

A page says where with a pair of comments, ``<!-- generated: parameters -->`` and
``<!-- end -->``. ``python docs/_ext/reference.py`` renews all of them; a test holds them equal to
the code.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from anna_onnx import config
from anna_onnx.flags import Flag
from anna_onnx.labels import KNOWN, Label
from anna_onnx.tableformats import Schema

SECTION = re.compile(r"(<!-- generated: (\S+)(?: (\S+))? -->\n).*?(<!-- end -->)", re.DOTALL)
WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
MANY = {
    int: "whole numbers",
    float: "numbers",
    str: "texts",
    config.Range: "[low, high]",
    tuple[float, ...]: "lists of numbers",
}


def renew(page: str) -> str:
    """Return a page with its generated sections as the code states them now."""

    def section(found: re.Match[str]) -> str:
        words = [] if found[3] is None else [found[3]]
        return f"{found[1]}\n{SECTIONS[found[2]](*words)}\n\n{found[4]}"

    return SECTION.sub(section, page)


# --- parameters -------------------------------------------------------------


def parameters() -> str:
    """Return the reference of params.toml: a section for each table."""
    return "\n\n".join(["## Top level", *_table(config.Config), *_tables(config.Config)])


def _tables(kind: type[Any]) -> Iterator[str]:
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from (f"## `[{name}]`", _summary(hint), *_table(hint))
        elif dataclasses.is_dataclass(item := next(iter(typing.get_args(hint)), None)):
            yield from (f"## `[[{name}]]`", _summary(item), *_table(item))
        if hint is config.Network:
            yield from _architectures(name)


def _architectures(table: str) -> Iterator[str]:
    for name, kind in config.ARCHITECTURES.items():
        yield from (f'### `[{table}]` with `architecture = "{name}"`', _summary(kind), *_table(kind))


def _table(kind: type[Any]) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    rows = [
        [f"`{item.name}`", _type(hints[item.name]), _accepts(item), _default(item.default), item.metadata["help"]]
        for item in dataclasses.fields(kind)
        if "help" in item.metadata
    ]
    if rows:
        yield markdown_table(["key", "type", "accepts", "default", "meaning"], rows)


def _summary(kind: type[Any]) -> str:
    return markdown(inspect.getdoc(kind) or "").split("\n\nAttributes\n")[0]


def _type(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return _type(arguments[0])
    if hint == config.Range:
        return "[low, high]"
    if typing.get_origin(hint) is dict:
        return "table"
    if arguments:
        return f"list of {MANY[arguments[0]]}"
    return WORDS[hint]


def _accepts(item: dataclasses.Field[Any]) -> str:
    check = item.metadata.get("check")
    if check is None:
        return ""
    if check.__doc__:
        return str(check.__doc__).removeprefix("Accept ").split(".\n")[0].rstrip(".")
    return str(check("")).removeprefix("must be ")


def _default(value: Any) -> str:
    if value is None or value == ():
        return "not given"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


# --- the result table ---------------------------------------------------------


def columns() -> str:
    """Return the columns of the result table, with a label that stands for all, and a pair for all pairs."""
    labels = (Label("teff", 4000.0, 7000.0), Label("logg", 2.0, 5.0))
    rows = [
        [f"`{column.name}`", column.kind, column.unit, f"`{column.ucd}`", column.description]
        for column in Schema(labels, intervals=True, rv=True, covariance=True).columns
        if "logg" not in column.name or "teff" in column.name
    ]
    return markdown_table(["column", "type", "unit", "UCD", "meaning"], rows)


def flags() -> str:
    """Return the flags, their bits and what they mean."""
    meaning = dict(re.findall(r"^\s*(\w+)\s{2,}(\S.*)$", Flag.__doc__ or "", re.MULTILINE))
    rows = ([f"`{flag.name}`", str(int(flag)), meaning[str(flag.name)]] for flag in Flag)
    return markdown_table(["flag", "bit", "means"], rows)


def labels() -> str:
    """Return the labels whose units and UCDs are known."""
    rows = ([f"`{name}`", unit, f"`{ucd}`"] for name, (unit, ucd) in KNOWN.items())
    return markdown_table(["label", "unit", "UCD"], rows)


# --- docstrings ---------------------------------------------------------------


def docstring(module: str) -> str:
    """Return what a module says of itself."""
    return markdown(inspect.getdoc(importlib.import_module(module)) or "")


def markdown(text: str) -> str:
    """Return the little reStructuredText that our docstrings use as Markdown."""
    literal = re.compile(r" ?::\n\n((?:(?: .*)?\n)*)")
    text = f"{text}\n".replace("``", "`")
    return literal.sub(lambda block: f":\n\n```text\n{textwrap.dedent(block[1]).strip()}\n```\n\n", text).strip()


def markdown_table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Escape what Markdown would take for something else."""
    text = text.replace("|", "\\|")
    return text if "`" in text else text.replace("<", "\\<")


SECTIONS: Mapping[str, Callable[..., str]] = {
    "parameters": parameters,
    "columns": columns,
    "flags": flags,
    "labels": labels,
    "docstring": docstring,
}


def main() -> None:
    """Renew the generated sections of all pages."""
    for path in sorted(Path(__file__).parents[1].glob("**/*.md")):
        text = path.read_text(encoding="utf-8")
        if (renewed := renew(text)) != text:
            path.write_text(renewed, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
