"""``anna``: make training sets, train, test and export networks."""

from __future__ import annotations

import click

from anna_onnx import __version__

from .group import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anna")
def main() -> None:
    """Train a network on stellar spectra and export it as one file.

    The colleague who gets the file needs only anna-lite.
    """
