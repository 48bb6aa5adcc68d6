"""A moment of the fuzzing of bundles."""

from tests.fuzz.fuzz_bundle import fuzz_at_random


def test_damaged_bundles_are_refused_and_nothing_worse() -> None:
    assert fuzz_at_random(4.0) > 20
