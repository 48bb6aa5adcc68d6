"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real and synthetic data, beside the checkout or at $ANNA_SHARED."""
    folder = Path(os.environ.get("ANNA_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder} (set ANNA_SHARED)")
    return folder
