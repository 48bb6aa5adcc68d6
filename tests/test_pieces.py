"""Work handed out ahead: in order, none twice, and never more than so much at once."""

from __future__ import annotations

import pytest

from anna_onnx.pieces import in_order


@pytest.mark.parametrize("n", [1, 3, 100])
def test_pieces_come_in_order_and_few_are_ahead(n: int) -> None:
    begun: list[int] = []
    for taken, piece in enumerate(in_order(lambda piece: begun.append(piece) or piece, iter(range(20)), n)):
        assert piece == taken
        assert begun == list(range(min(20, taken + n)))
    assert begun == list(range(20))


def test_of_no_pieces_nothing_is_begun() -> None:
    assert list(in_order(lambda piece: piece, [], 5)) == []
