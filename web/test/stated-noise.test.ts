import assert from "node:assert/strict";
import { test } from "node:test";

import { excess, unevenness } from "../src/stated-noise.ts";

const errors = (n: number, huge: number) => Float64Array.from({ length: n }, (_, i) => (i % 200 ? 0.01 : huge));

test("stated errors that are larger than the noise count beyond a quarter of it", () => {
  assert.ok(Math.abs(excess(errors(1000, 0.01), 0.004) - 2) < 1e-9);
  assert.equal(excess(errors(1000, 0.01), 0.0081), 1);
});

test("huge errors of a few pixels say nothing of the others", () => {
  assert.equal(excess(errors(1000, 1e9), 0.01), 1);
  assert.ok(Math.abs(unevenness(errors(1000, 1e9)) - 1) < 1e-9);
});

test("where nothing is valid nothing follows", () => {
  const nothing = new Float64Array(100).fill(NaN);
  assert.deepEqual([excess(nothing, 0.01), unevenness(nothing)], [1, 1]);
});
