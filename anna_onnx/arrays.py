"""Short names for the types of arrays, as signatures give them; shapes stand in the docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]
"""Of either precision."""
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
