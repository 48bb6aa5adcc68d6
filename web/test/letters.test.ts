import assert from "node:assert/strict";
import { test } from "node:test";

import { fromLetters } from "../src/letters.ts";

test("thirteen bytes are sixteen letters, of which the last stand for all ones", () => {
  const ones = new Uint8Array(13).fill(255); // 8191 = 90 * 91 + 1
  assert.deepEqual(fromLetters("!" + "~#".repeat(8)), ones);
});

test("bytes that only fill up are left out", () => {
  assert.deepEqual(fromLetters("-" + "!".repeat(16)), new Uint8Array(2)); // the letter of 11
  assert.deepEqual(fromLetters("!"), new Uint8Array());
});
