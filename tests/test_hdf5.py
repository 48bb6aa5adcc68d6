"""What h5py writes is read by hand as h5py reads it; what is damaged ends with an error that is expected."""

import contextlib
import io
import struct
import zlib
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from anna_onnx.hdf5 import root
from tests import tiny

NUMBERS = st.sampled_from([np.dtype(name) for name in ("<f2", "<f4", "<f8", "<i4", "<i8")])
PACKED = {"shuffle": True, "compression": "gzip"}


def written(**file: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **file) as made:
        made.attrs["format"] = "größer"
        made.create_dataset("group/numbers", data=np.arange(6.0).reshape(2, 3), chunks=(2, 3), **PACKED)
        made["group/numbers"].attrs["n"] = 7
        made.create_dataset("names", data=["a", "", "Å"], dtype=h5py.string_dtype())
        made["soft"] = h5py.SoftLink("/names")
    return buffer.getvalue()


@given(arrays.arrays(NUMBERS, arrays.array_shapes(max_dims=3)), st.booleans())
def test_numbers_are_read_as_they_were_written(values: Any, packed: bool) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("some", data=values, **({"chunks": values.shape, **PACKED} if packed else {}))
        file["some"].attrs["first"] = values.flat[0]
    node = root(buffer.getvalue())["some"]
    assert node.dataset is not None
    np.testing.assert_array_equal(node.dataset.numbers(), values)
    np.testing.assert_array_equal(node.attributes["first"].numbers(), values.flat[0])


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40), min_size=1))
def test_texts_are_read_as_they_were_written(texts: list[str]) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("some", data=texts, dtype=h5py.string_dtype())
        file.attrs["first"] = texts[0]
    node = root(buffer.getvalue())
    dataset = node["some"].dataset
    assert dataset is not None
    assert dataset.texts() == texts
    assert node.attributes["first"].texts() == texts[:1]


def test_groups_know_their_members_and_follow_no_links() -> None:
    file = root(written())
    assert "group" in file
    assert "numbers" not in file
    assert file["group"].dataset is None
    assert file["group/numbers"].attributes["n"].numbers() == 7
    for absent in ("soft", "group/other", "names/inside"):
        with pytest.raises(LookupError, match="link, or missing"):
            file[absent]


@pytest.mark.parametrize("version", ["v108", "latest"])
def test_structures_that_h5py_does_not_write_by_default_are_refused(version: str) -> None:
    with pytest.raises(ValueError, match="superblock"):
        root(written(libver=(version, "latest")))


def test_whatever_byte_is_damaged_the_error_is_an_expected_one() -> None:
    content = tiny.sidecar().to_bytes()
    paths: list[str] = []
    with h5py.File(io.BytesIO(content)) as file:
        file.visit(paths.append)
    random = np.random.default_rng(1)
    for at in random.choice(len(content), 500, replace=False):
        damaged = bytearray(content)
        damaged[at] = random.choice([0, 1, 0x7F, 0xFF, damaged[at] ^ 1])
        with contextlib.suppress(ValueError, LookupError, ArithmeticError, struct.error, zlib.error):
            read_all(bytes(damaged), paths)


def read_all(content: bytes, paths: list[str]) -> None:
    file = root(content)
    for path in paths:
        node = file[path]
        for stored in [*node.attributes.values(), node.dataset]:
            if stored is None or stored.nbytes > 1_000_000:
                continue
            if stored.is_text:
                stored.texts()
            elif stored.dtype is not None:
                stored.numbers()
