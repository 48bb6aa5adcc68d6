import assert from "node:assert/strict";
import { test } from "node:test";

import { fixed, general, percent } from "../src/format.ts";
import { decimalsFor, numberText, unitText } from "../src/ui/words.ts";

test("numbers are written as Python writes them", () => {
  const cases: [number, number, string][] = [
    [5865.6439, 7, "5865.644"],
    [0, 7, "0"],
    [1, 7, "1"],
    [100000, 6, "100000"],
    [1e6, 6, "1e+06"],
    [-0.000012345678, 7, "-1.234568e-05"],
    [0.0001, 7, "0.0001"],
    [9999999.9, 7, "1e+07"],
    [NaN, 7, "nan"],
    [-Infinity, 7, "-inf"],
  ];
  for (const [value, digits, text] of cases) assert.equal(general(value, digits), text);
  const halves: [number, number, string][] = [
    [12.25, 1, "12.2"],
    [-12.75, 1, "-12.8"],
    [2.5, 0, "2"],
    [3.5, 0, "4"],
    [0.15, 1, "0.1"],
    [-0.5, 0, "0"],
  ];
  for (const [value, decimals, text] of halves) assert.equal(fixed(value, decimals), text);
  assert.equal(general(0.125, 2), "0.12");
  assert.equal(fixed(-0.04, 1), "0.0");
  assert.equal(fixed(-0.06, 1), "-0.1");
  assert.equal(percent(-0.004), "0%");
  assert.equal(percent(0.99), "99%");
  assert.equal(percent(0.4567, 1), "45.7%");
});

test("a value is shown with two digits of its error", () => {
  assert.equal(decimalsFor(87.2), 0);
  assert.equal(decimalsFor(0.16), 2);
  assert.equal(decimalsFor(0.0312), 3);
  assert.equal(numberText(-0.0079, 3), "−0.008");
  assert.equal(numberText(NaN, 3), "–");
  assert.equal(unitText("dex(cm / s2)"), "dex (cm/s²)");
});
