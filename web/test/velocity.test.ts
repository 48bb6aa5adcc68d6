import assert from "node:assert/strict";
import { test } from "node:test";

import type { Model } from "../src/model.ts";
import { tolerates } from "../src/velocity.ts";

test("a velocity that is not known is not beyond those of the training", () => {
  const model = { preparation: { velocity_range: [-100, 100] } } as unknown as Model;
  const expected = [true, true, false, true];
  assert.deepEqual(
    [0, -100, 101, NaN].map((velocity) => tolerates(model, velocity)),
    expected,
  );
});
