import assert from "node:assert/strict";
import { test } from "node:test";

import { Average, Degrader, findGaps, Identity, Interpolation, resampler } from "../src/resampling.ts";

const steps = (first: number, step: number, n: number) => Float64Array.from({ length: n }, (_, i) => first + i * step);
const close = (a: number, b: number, tolerance: number) => assert.ok(Math.abs(a - b) < tolerance, `${a} is not ${b}`);

test("a spectrum on its own grid stays as it is", () => {
  const grid = steps(5000, 0.1, 100);
  const flux = grid.map(Math.sin);
  const road = resampler(grid, grid);
  assert.ok(road instanceof Identity);
  assert.deepEqual(road.apply(flux, null, null).flux, flux);
});

test("a line keeps its equivalent width on coarser pixels", () => {
  const fine = steps(5000, 0.01, 4001);
  const coarse = steps(5005, 0.3, 100);
  const flux = fine.map((w) => 1 - 0.5 * Math.exp(-0.5 * ((w - 5020) / 0.1) ** 2));
  const road = resampler(fine, coarse);
  assert.ok(road instanceof Average);
  const width = road.apply(flux, null, null).flux.reduce((sum, value) => sum + 0.3 * (1 - value), 0);
  close(width, 0.5 * 0.1 * Math.sqrt(2 * Math.PI), 1e-6);
});

test("interpolation is exact on a straight line, and a bad neighbour makes a bad pixel", () => {
  const coarse = steps(5000, 1, 21);
  const fine = steps(5000.25, 0.5, 30);
  const road = resampler(coarse, fine);
  assert.ok(road instanceof Interpolation);
  const bad = Uint8Array.from(coarse, (w) => (w === 5005 ? 1 : 0));
  const { flux, valid } = road.apply(
    coarse.map((w) => 2 * w),
    null,
    bad,
  );
  fine.forEach((w, i) => {
    const spoiled = w > 5004 && w < 5006;
    assert.equal(valid[i], spoiled ? 0 : 1);
    if (spoiled) assert.ok(Number.isNaN(flux[i]));
    else close(flux[i], 2 * w, 1e-9);
  });
});

test("a gap between orders stays a gap", () => {
  const orders = Float64Array.of(...steps(5000, 0.1, 50), ...steps(5010, 0.1, 50));
  assert.deepEqual(findGaps(orders), [49]);
  const { valid } = resampler(orders, steps(5000, 0.3, 40)).apply(
    orders.map(() => 1),
    null,
    null,
  );
  assert.equal(valid[10], 1);
  assert.equal(valid[25], 0);
});

test("a long spectrum is degraded by a little as a short one is", () => {
  const flux = steps(4000, 0.01, 250000).fill(1);
  const { flux: smooth } = new Degrader(steps(4000, 0.01, flux.length), 53000, 50000).apply(flux, null, null);
  assert.ok(smooth.length > 200000);
  assert.ok(smooth.every((value) => Math.abs(value - 1) < 1e-9));
});
