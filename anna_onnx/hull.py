"""Hull: which combinations of labels the training set has, where they do not fill the box of their ranges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import BundleError

STARS_IN_CELL = 12
"""Training stars of a cell, were they spread evenly: then none is empty by chance."""
MAX_CELLS, MAX_PAIRS = 20, 500


@dataclass(frozen=True, eq=False)
class Hull:
    """Pairs of labels of which the training stars fill a part only, such as Teff and log g along isochrones.

    Attributes
    ----------
    pairs : array, shape (n_pair, 2)
        Places of two labels among all.
    filled : array, shape (n_pair, n_cell, n_cell)
        1 where there are training stars, in even cells of both scaled labels, or in a cell next to it; 0 elsewhere.
    """

    pairs: FloatArray
    filled: FloatArray

    def __post_init__(self) -> None:
        n_pair, n_cell = self.filled.shape[0], self.filled.shape[-1]
        if self.filled.shape != (n_pair, n_cell, n_cell) or self.pairs.shape != (n_pair, 2) or 0 in self.filled.shape:
            raise BundleError(f"hull: pairs of shape {self.pairs.shape}, cells of shape {self.filled.shape}")
        if n_pair > MAX_PAIRS or n_cell > MAX_CELLS:
            raise BundleError(f"hull: {n_pair} pairs of {n_cell} cells, at most {MAX_PAIRS} of {MAX_CELLS} are taken")
        if not (np.isin(self.filled, (0, 1)).all() and np.isin(self.pairs, np.arange(self.n_label)).all()):
            raise BundleError("hull: cells must be 0 or 1, and pairs places of labels")

    @property
    def n_label(self) -> int:
        """One more than the last place that a pair names."""
        return int(np.clip(np.nan_to_num(self.pairs).max(), 0, 1000)) + 1

    @classmethod
    def of(cls, scaled: FloatArray) -> Hull | None:
        """Return the hull of training labels, shape (n, n_label), scaled to 0-1; None where they fill their box."""
        stars = scaled[np.isfinite(scaled).all(axis=1)]
        n_cell = min(MAX_CELLS, int(np.sqrt(len(stars) / STARS_IN_CELL)))
        if n_cell < 3:
            return None
        cells = np.clip((stars * n_cell).astype(int), 0, n_cell - 1)
        every = {pair: _filled(cells[:, pair], n_cell) for pair in combinations(range(stars.shape[1]), 2)}
        partly = {pair: filled for pair, filled in every.items() if not filled.all()}
        if not partly:
            return None
        pairs = np.array(list(partly), dtype=np.float64)[:MAX_PAIRS]
        return cls(pairs, np.array(list(partly.values()), dtype=np.float64)[:MAX_PAIRS])

    def outside(self, scaled: FloatArray, errors: FloatArray) -> BoolArray:
        """Return whether stars lie where training has none, even within their errors.

        Parameters
        ----------
        scaled, errors : arrays, shape (n, n_label)
            Labels scaled to 0-1 and their errors in the same scale.

        Returns
        -------
        outside : array of bool, shape (n,)
        """
        n_cell = self.filled.shape[-1]
        # What lies beyond a range is told by the range.
        with np.errstate(invalid="ignore"):
            edges = scaled - errors, scaled + errors
        inside = (np.clip(np.nan_to_num(edge), 0, 1) for edge in edges)
        low, high = (np.minimum((edge * n_cell).astype(int), n_cell - 1) for edge in inside)
        outside = np.zeros(len(scaled), dtype=bool)
        for (i, j), filled in zip(self.pairs.astype(int), self.filled, strict=True):
            # Filled cells in a rectangle are a difference of sums from the corner.
            sums = np.pad(filled, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
            a, b, c, d = low[:, i], high[:, i] + 1, low[:, j], high[:, j] + 1
            outside |= sums[b, d] - sums[a, d] - sums[b, c] + sums[a, c] < 0.5
        return outside


def _filled(cells: NDArray[np.intp], n_cell: int) -> BoolArray:
    """Return whether there are stars in a cell or next to it, shape (n_cell, n_cell)."""
    wide = np.zeros((n_cell + 2, n_cell + 2), dtype=bool)
    wide[cells[:, 0] + 1, cells[:, 1] + 1] = True
    around = [wide[i : i + n_cell, j : j + n_cell] for i in range(3) for j in range(3)]
    return np.asarray(np.logical_or.reduce(around))
