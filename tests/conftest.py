"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest

from anna_onnx.errors import MissingExtraError

LIGHT = find_spec("torch") is None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Skip a test whose fixtures need an extra that a light environment lacks."""
    yield from _skipping_in_a_light_environment()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Skip a test that needs an extra that a light environment lacks."""
    yield from _skipping_in_a_light_environment()


def _skipping_in_a_light_environment() -> Generator[None]:
    try:
        return (yield)
    except MissingExtraError as error:
        if not LIGHT:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, which shows pages without a window."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium on this machine")
    return found


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real and synthetic data, beside the checkout or at $ANNA_SHARED."""
    folder = Path(os.environ.get("ANNA_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder} (set ANNA_SHARED)")
    return folder
