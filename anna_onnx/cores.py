"""Cores of the machine, and how many processes can share them."""

from __future__ import annotations

import os
import sys


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_for(n: int) -> int:
    """Return how many of `n` processes a pool can have: Windows waits for 61 at most."""
    return min(n, 61) if sys.platform == "win32" else n
