import assert from "node:assert/strict";
import { test } from "node:test";

import { chebyshev, interpolate, leastSquares, legendre, median, nearestRank, searchSorted } from "../src/numeric.ts";

test("searchSorted finds the place on either side of equals", () => {
  assert.equal(searchSorted([1, 2, 2, 3], 2), 1);
  assert.equal(searchSorted([1, 2, 2, 3], 2, "right"), 3);
  assert.equal(searchSorted([1, 2], 9), 2);
});

test("interpolation holds its ends and is exact at the points", () => {
  assert.equal(interpolate(0, [1, 2], [10, 20]), 10);
  assert.equal(interpolate(1.25, [1, 2], [10, 20]), 12.5);
  assert.equal(interpolate(2, [1, 2], [10, 20]), 20);
  assert.ok(Number.isNaN(interpolate(NaN, [1, 2], [10, 20])));
});

test("a quantile by nearest rank leaves NaN out", () => {
  assert.equal(nearestRank([NaN, 3, 1, 2], 0.5), 2);
  assert.equal(nearestRank([4, 3, 1, 2], 0.5), 3); // rank 1.5 goes to the even neighbour
  assert.ok(Number.isNaN(nearestRank([NaN], 0.5)));
  assert.equal(median([4, 1, 3, 2]), 2.5);
});

test("Chebyshev and Legendre series agree with their closed forms", () => {
  for (const x of [-1, -0.3, 0.7]) {
    assert.ok(Math.abs(chebyshev(x, [0, 0, 0, 1]) - (4 * x ** 3 - 3 * x)) < 1e-14);
    assert.ok(Math.abs(legendre(x, [0, 0, 0, 1]) - (5 * x ** 3 - 3 * x) / 2) < 1e-14);
  }
});

test("least squares finds the line that points lie on", () => {
  const x = [0, 1, 2, 5];
  const [intercept, slope] = leastSquares(
    x.map((value) => Float64Array.of(1, value)),
    Float64Array.from(x, (value) => 3 - 2 * value),
  );
  assert.ok(Math.abs(intercept - 3) < 1e-12 && Math.abs(slope + 2) < 1e-12);
});

test("of several solutions of least squares the smallest is taken", () => {
  const rows = [1, 2, 3].map((value) => Float64Array.of(value, 2 * value, 0));
  const found = leastSquares(rows, Float64Array.of(5, 10, 15)); // a + 2 b = 5, c is free
  [1, 2, 0].forEach((value, i) => assert.ok(Math.abs(found[i] - value) < 1e-12));
});
