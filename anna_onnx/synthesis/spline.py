"""Cubic splines as matrices: interpolation in the axes of a grid, for numpy arrays and torch tensors alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anna_onnx.arrays import FloatArray


def cardinal_splines(knots: FloatArray) -> FloatArray:
    """Return the splines that are 1 at one knot and 0 at all others.

    Cubic splines with the not-a-knot end condition (de Boor 1978, A Practical
    Guide to Splines, ch. IV); a parabola through three knots, a line through two.

    Parameters
    ----------
    knots : array of float64, shape (n_knot,)
        Strictly ascending, at least two.

    Returns
    -------
    table : array of float64, shape (n_knot - 1, 4, n_knot)
        Spline j at ``knots[i] + t`` is ``sum(table[i, p, j] * t**p)``.
    """
    values = np.eye(knots.size)
    h = np.diff(knots)[:, None]
    slope: FloatArray = np.diff(values, axis=0) / h
    second = _second_derivatives(h[:, 0], slope)
    return np.stack(
        [
            values[:-1],
            slope - h * (2 * second[:-1] + second[1:]) / 6,
            second[:-1] / 2,
            np.diff(second, axis=0) / (6 * h),
        ],
        axis=1,
    )


def _second_derivatives(h: FloatArray, slope: FloatArray) -> FloatArray:
    """Return the splines' second derivatives at the knots, shape (n_knot, n_spline)."""
    n = h.size + 1
    if n == 2:
        return np.zeros((n, slope.shape[1]))
    matrix = np.zeros((n, n))
    right = np.zeros((n, slope.shape[1]))
    inner = np.arange(1, n - 1)
    matrix[inner, inner - 1] = h[:-1] / 6
    matrix[inner, inner] = (h[:-1] + h[1:]) / 3
    matrix[inner, inner + 1] = h[1:] / 6
    right[1:-1] = np.diff(slope, axis=0)
    if n == 3:  # both conditions below would be the same: a parabola has one second derivative
        matrix[0, :2] = matrix[-1, -2:] = -1, 1
    else:  # the third derivative is continuous at the last knot but one of either end
        matrix[0, :3] = -h[1], h[0] + h[1], -h[0]
        matrix[-1, -3:] = -h[-1], h[-2] + h[-1], -h[-2]
    return np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)


def node_weights(knots: Sequence[Any], tables: Sequence[Any], coordinates: Sequence[Any]) -> Any:
    """Return the weight of every node of a grid at points between them.

    The tensor product of the splines of the axes: a value at a point is
    ``weights @ values_at_the_nodes``.

    Parameters
    ----------
    knots : sequence of arrays, shape (n_knot,)
        One for each axis.
    tables : sequence of arrays, shape (n_knot - 1, 4, n_knot)
        See `cardinal_splines`.
    coordinates : sequence of arrays, shape (n,)
        One for each axis. Beyond its ends a spline goes on as its last cubic.

    Returns
    -------
    weights : array, shape (n, n_node)
        The last axis of the grid runs fastest.
    """
    weights = None
    for knot, table, x in zip(knots, tables, coordinates, strict=True):
        interval = (x[:, None] >= knot[1:-1]).sum(1)
        t = (x - knot[interval])[:, None]
        cubic = table[interval]  # (n, 4, n_knot)
        weight = ((cubic[:, 3] * t + cubic[:, 2]) * t + cubic[:, 1]) * t + cubic[:, 0]
        weights = weight if weights is None else (weights[:, :, None] * weight[:, None, :]).reshape(len(x), -1)
    return weights
