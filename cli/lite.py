"""``anna-lite``: labels from spectra with a network somebody sent; needs no PyTorch."""

from __future__ import annotations

import click

from anna_onnx import __version__

from .group import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anna-lite")
def main() -> None:
    """Infer stellar labels from spectra with a trained network."""
