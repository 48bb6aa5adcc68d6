"""What the two commands share: options, errors without a traceback, and progress on a terminal or in a log."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from anna_onnx.errors import AnnaError
from anna_onnx.progress import Progress, silent

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def several(*options: Decorator) -> Decorator:
    """Return a decorator that adds several options, in this order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


reading_options = several(
    click.option("--medium", type=click.Choice(["air", "vacuum"]), help="Medium of the wavelengths."),
    click.option(
        "--frame", type=click.Choice(["topocentric", "barycentric", "rest"]), help="Frame of the wavelengths."
    ),
    click.option("--hdu", help="FITS extension to read, by number (the primary is 0) or name."),
    click.option("--wave-unit", help="Unit of the wavelengths, such as nm."),
    click.option("--columns", help="Columns of wavelength, flux and error, such as wave,flux,err or 1,2,3."),
    click.option("--merge-orders", is_flag=True, help="Merge echelle orders into one spectrum."),
)
"""They say what a file does not say itself."""


class Group(click.Group):
    """A command group that keeps the order in which commands were written and prints an AnnaError as a line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A code page of Windows lacks letters that file names have; a damaged name comes out as it went in.
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            _give_up_output()
            click.echo(f"Error: {error.filename or 'output'}: cannot be written ({error.strerror})", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AnnaError as error:
            raise click.ClickException(printable(str(error))) from error
        except KeyboardInterrupt as error:
            raise click.Abort from error


def _give_up_output() -> None:
    """Let what standard output does not take go to nowhere, where Python itself would try once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Return a text without the control characters with which a file could write to the terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a block that is told to end (SIGTERM) end as Ctrl-C makes it end."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress_bar(what: str, prints_rows: bool = False) -> Iterator[Progress]:
    """Show a progress bar on a terminal; elsewhere a plain line every ten seconds.

    Everything goes to standard error, so that a table on standard output stays clean. If its rows go to a
    terminal, as they come, they are progress enough.
    """
    if prints_rows and sys.stdout.isatty():
        yield silent
        return
    on_terminal = sys.stderr.isatty()
    bar: Any = None
    last = time.monotonic()

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal bar, last
        if on_terminal:
            if bar is not None and done < bar.pos:  # the next part of the work begins
                bar.render_finish()
                bar = None
            if bar is None:
                bar = click.progressbar(
                    length=total, label=what, file=sys.stderr, show_pos=True, item_show_func=lambda item: item
                )
            bar.update(done - bar.pos, note)
        elif time.monotonic() - last >= 10:
            last = time.monotonic()
            click.echo(f"{what}: {done} of {total} {note}".rstrip(), err=True)

    try:
        yield report
    finally:
        if bar is not None:
            bar.render_finish()
