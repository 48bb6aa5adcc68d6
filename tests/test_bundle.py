"""A bundle opens as it was written; one that was tampered with does not open at all."""

import contextlib
import dataclasses
import io
import re
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx builds the networks of this test")

import onnx
from onnx import TensorProto, helper

from anna_onnx import wire
from anna_onnx.bundle import METADATA_KEY, Bundle, find_model, write
from anna_onnx.calibration import Calibration, Trends
from anna_onnx.card import model_card
from anna_onnx.errors import BundleError, SidecarMismatchError, VersionError
from anna_onnx.labels import Label
from anna_onnx.novelty import Novelty
from anna_onnx.session import Session
from anna_onnx.sidecar import Sidecar
from tests import tiny


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tiny.bundle(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def full_sidecar() -> Any:
    return tiny.sidecar(
        calibration=Calibration(np.array([0.5, 0.9]), np.array([50.0, 200]), np.ones((2, 2, 2)), 100),
        trends=Trends(np.array([[0.0, 1.0], [0.1, 0.9]])),
        novelty=Novelty(np.ones(50), np.eye(50)[:3], np.array([0.01, 0.1]), np.array([0.1, 1.0]), 0.01),
        provenance={"date": "2024-01-01", "metrics": {}, "note": "größer"},
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    whole = full_sidecar()
    read = write(tmp_path / "model.onnx", tiny.network(), whole).sidecar
    assert (read.labels, read.grid, read.provenance) == (whole.labels, whole.grid, whole.provenance)
    for part in ("calibration", "trends", "novelty", "selftest"):
        for item in dataclasses.fields(getattr(whole, part)):
            np.testing.assert_array_equal(
                getattr(getattr(read, part), item.name), getattr(getattr(whole, part), item.name)
            )


def test_the_network_is_the_file_without_the_sidecar(path: Path) -> None:
    assert Bundle.load(path).network == tiny.network()
    assert {item.key for item in onnx.load(path).metadata_props} == {METADATA_KEY.decode()}


def test_a_lone_model_carries_its_sidecar(path: Path) -> None:
    path.with_suffix(".h5").unlink()
    assert Bundle.load(path).sidecar.labels == tiny.LABELS


def test_a_sidecar_of_another_model_is_refused(path: Path, tmp_path: Path) -> None:
    weight = tiny.constants()["weight"] * 2
    write(tmp_path / "other.onnx", tiny.model(weight=weight).SerializeToString(), tiny.sidecar())
    shutil.copy(tmp_path / "other.h5", path.with_suffix(".h5"))
    with pytest.raises(SidecarMismatchError, match="belongs to the network"):
        Bundle.load(path)


def test_an_edited_sidecar_is_refused(path: Path) -> None:
    with h5py.File(path.with_suffix(".h5"), "r+") as file:
        file["labels/low"][0] = 100.0
    with pytest.raises(SidecarMismatchError, match="differs from the sidecar inside"):
        Bundle.load(path)


def test_an_edited_network_is_refused(path: Path) -> None:
    content = path.read_bytes()
    at = content.index(tiny.constants()["weight"].tobytes())
    path.write_bytes(content[:at] + b"\0\0\0\x41" + content[at + 4 :])
    with pytest.raises(SidecarMismatchError, match="sha256"):
        Bundle.load(path)


def test_a_network_without_any_sidecar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny.network())
    with pytest.raises(BundleError, match="not one of anna-onnx"):
        Bundle.load(tmp_path / "model.onnx")


def test_released_models_are_listed_when_a_name_is_wrong() -> None:
    assert find_model("some/model.onnx") == Path("some/model.onnx")
    for name in ("no-such-model", "no-such-model.onnx"):
        with pytest.raises(BundleError, match="released models: fgk-"):
            find_model(name)


def test_a_released_model_goes_by_its_file_name_too_unless_there_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model("fgk-6625-6825.onnx") == find_model("fgk-6625-6825")
    (tmp_path / "fgk-6625-6825.onnx").touch()
    assert find_model("fgk-6625-6825.onnx") == Path("fgk-6625-6825.onnx")


def test_a_spectrum_in_the_place_of_the_model_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "star.fits").write_bytes(b"SIMPLE  =                    T".ljust(2880))
    refused(tmp_path / "star.fits", "a FITS file, needed a model")


# --- hostile files: each is refused within 2 s, with one line ---------------------------------------------------------


def refused(path: Path, match: str) -> None:
    started = time.monotonic()
    with pytest.raises(BundleError, match=match) as caught:
        Session(Bundle.load(path), threads=1)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 2


def with_network(path: Path, model: Any) -> Path:
    """Write a bundle by hand, past the checks of `write`."""
    network = model if isinstance(model, bytes) else model.SerializeToString()
    with_sidecar(path, network, tiny.sidecar())
    return path


def with_sidecar(path: Path, network: bytes, sidecar: Any, edit: Callable[[h5py.File], None] | None = None) -> None:
    import hashlib

    buffer = io.BytesIO(dataclasses.replace(sidecar, sha256=hashlib.sha256(network).hexdigest()).to_bytes())
    if edit is not None:
        with h5py.File(buffer, "r+") as file:
            edit(file)
    path.write_bytes(network)
    path.with_suffix(".h5").write_bytes(buffer.getvalue())


@pytest.mark.parametrize("keep", [0, 1, 10, 1000, -1, -5000])
def test_a_truncated_model_is_refused(path: Path, keep: int) -> None:
    path.with_suffix(".h5").unlink()
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "model.onnx")


def constant_of_shape(n: int) -> tuple[Any, Any]:
    tensor = helper.make_tensor("shape_of_bomb", TensorProto.INT64, [2], [n, n])
    return tensor, helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])


def graph_inside(operation: str) -> Any:
    body = helper.make_graph([], "body", [], [helper.make_tensor_value_info("one", TensorProto.FLOAT, [1])])
    names = {"If": ["then_branch", "else_branch"]}.get(operation, ["body"])
    return helper.make_node(operation, ["one"], ["of_body"], **dict.fromkeys(names, body))


HOSTILE_NODES = {
    "foreign domain": ([helper.make_node("Relu", ["flux"], ["x"], domain="com.evil")], "not one of a network"),
    "unknown operation": ([helper.make_node("Explode", ["flux"], ["x"])], "not one of a network"),
    "random numbers": ([helper.make_node("RandomNormal", [], ["x"], shape=[10])], "not one of a network"),
    "cycle": (
        [helper.make_node("Add", ["flux", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])],
        "cyclic",
    ),
    "loop": ([graph_inside("Loop")], "Loop"),
    "if": ([graph_inside("If")], "If"),
    "scan": ([graph_inside("Scan")], "Scan"),
    "graph in an allowed operation": (
        [helper.make_node("Relu", ["flux"], ["x"], body=graph_inside("Loop").attribute[0].g)],
        "graph of its own",
    ),
    "constant of shape": ([helper.make_node("ConstantOfShape", ["bomb"], ["x"])], "not one of a network"),
    "expansion": ([helper.make_node("Expand", ["one", "bomb"], ["x"])], "constants alone"),
    "product of constants": (
        [
            helper.make_node("Unsqueeze", ["weight", "bomb"], ["a"]),
            helper.make_node("MatMul", ["weight", "weight"], ["x"]),
        ],
        "constants alone",
    ),
}


@pytest.mark.parametrize("case", HOSTILE_NODES)
def test_operations_that_no_network_has_are_refused(tmp_path: Path, case: str) -> None:
    nodes, why = HOSTILE_NODES[case]
    bomb = helper.make_tensor("bomb", TensorProto.INT64, [2], [200_000, 200_000])
    model = tiny.model(nodes, [bomb], domains=("com.evil",))
    refused(with_network(tmp_path / "model.onnx", model), why)


def test_memory_that_grows_with_a_spectrum_is_bounded(tmp_path: Path) -> None:
    size = helper.make_tensor("size", TensorProto.INT64, [3], [40_000, 40_000, 1])
    nodes = [
        helper.make_node("Unsqueeze", ["flux", "axis"], ["cube"]),
        helper.make_node("Expand", ["cube", "size"], ["bomb"]),
        helper.make_node("ReduceMean", ["bomb"], ["mean"], keepdims=0),
    ]
    model = tiny.model(nodes, [size, helper.make_tensor("axis", TensorProto.INT64, [1], [1])])
    # The answer depends on it, so that it cannot be left out.
    model.graph.node[-3].input[0] = "shifted"
    model.graph.node.insert(len(nodes) + 2, helper.make_node("Add", ["filled", "mean"], ["shifted"]))
    refused(with_network(tmp_path / "model.onnx", model), "does not run|refuses the network")


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    model = tiny.model()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    refused(with_network(tmp_path / "model.onnx", model), "another file")


def test_functions_and_second_graphs_are_refused(tmp_path: Path) -> None:
    model = tiny.model()
    function = helper.make_function("evil", "f", [], [], [], [helper.make_opsetid("", 18)])
    model.functions.append(function)
    refused(with_network(tmp_path / "model.onnx", model), "functions")
    graph = wire.encode_bytes(7, tiny.model().graph.SerializeToString())
    refused(with_network(tmp_path / "two.onnx", tiny.network() + graph), "2 graphs")


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    model = tiny.model()
    model.graph.initializer[1].dims[0] = 500_000_000
    refused(with_network(tmp_path / "model.onnx", model), "larger than a network's")


def test_a_network_of_other_shapes_is_refused(tmp_path: Path) -> None:
    model = tiny.model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 60
    refused(with_network(tmp_path / "model.onnx", model), "needed flux|refuses")


@pytest.mark.parametrize("extreme", [1.5, np.nan])
def test_correlations_that_are_none_are_refused(tmp_path: Path, extreme: float) -> None:
    refused(with_network(tmp_path / "model.onnx", tiny.correlated_model(extreme)), "correlations that are none")


def test_correlations_of_another_number_of_labels_are_refused(tmp_path: Path) -> None:
    model = tiny.correlated_model()
    model.graph.node[-1].output[0] = "square"
    model.graph.node.append(helper.make_node("Flatten", ["square"], ["correlation"]))
    model.graph.output[-1].CopyFrom(helper.make_tensor_value_info("correlation", TensorProto.FLOAT, ["batch", 4]))
    refused(with_network(tmp_path / "model.onnx", model), "for one spectrum")


def test_metadata_of_any_size_are_refused_unread(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # sparse
    refused(path, "largest taken")
    path.with_suffix(".h5").unlink()
    entry = wire.encode_bytes(1, METADATA_KEY) + wire.encode_bytes(2, b"A" * 90_000_000)
    path.write_bytes(tiny.network() + wire.encode_bytes(14, entry))
    refused(path, "too large")


def test_a_large_sidecar_is_refused_unread(path: Path) -> None:
    with path.with_suffix(".h5").open("r+b") as file:
        file.truncate(1 << 30)
    refused(path, "largest taken")


def replace_dataset(name: str, **how: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return edit


def chunk_bomb(file: h5py.File) -> None:
    del file["selftest/flux"]
    bomb = file.create_dataset("selftest/flux", (3, 50), "f4", chunks=(3, 50), shuffle=True, compression="gzip")
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(10_000_000)) for _ in range(50)) + packer.flush()
    bomb.id.write_direct_chunk((0, 0), packed)


def external_link(file: h5py.File) -> None:
    del file["wavelength"]
    file["wavelength"] = h5py.ExternalLink("/etc/passwd", "/x")


def virtual(file: h5py.File) -> None:
    del file["labels/low"]
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2,))
    file.create_virtual_dataset("labels/low", layout)


def attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


HOSTILE_SIDECARS: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "huge grid": (replace_dataset("wavelength", shape=(1 << 40,), dtype="f8", chunks=(1 << 20,)), "too much memory"),
    "huge chunks": (
        replace_dataset("wavelength", shape=(50,), dtype="f8", chunks=(1 << 28,), maxshape=(None,)),
        "too much memory",
    ),
    "huge labels": (
        replace_dataset("labels/name", shape=(1 << 40,), dtype=h5py.string_dtype(), chunks=(1000,)),
        "memory",
    ),
    "inflation": (chunk_bomb, "damaged"),
    "external link": (external_link, "link"),
    "virtual dataset": (virtual, "another file"),
    "external storage": (
        replace_dataset("labels/low", shape=(2,), dtype="f8", external=[("/etc/passwd", 0, 16)]),
        "another file",
    ),
    "group for dataset": (
        lambda file: (file.__delitem__("wavelength"), file.create_group("wavelength"))[0],
        "dataset|text",
    ),
    "text for numbers": (replace_dataset("labels/low", data=["a", "b"]), "floating-point"),
    "NaN range": (replace_dataset("labels/low", data=[np.nan, 0.0]), "range"),
    "empty range": (replace_dataset("labels/low", data=[9000.0, 0.0]), "range"),
    "too few labels": (replace_dataset("labels/low", data=[3000.0]), "damaged"),
    "twice the same label": (replace_dataset("labels/name", data=["teff", "teff"]), "different"),
    "no label name": (replace_dataset("labels/name", data=["teff", "\x1b[2J"]), "letters"),
    "NaN grid": (replace_dataset("wavelength", data=np.full(50, np.nan)), "dataset|text|finite"),
    "short self-test": (replace_dataset("selftest/labels", data=np.zeros((1, 2), "f4")), "selftest"),
    "major version": (attribute("format_version", "3.0"), "upgrade anna-onnx"),
    "earlier version": (lambda file: file.create_group("emulator"), "export the model anew"),
    "no version": (attribute("format_version", "new"), "is no version"),
    "other format": (attribute("format", "anna-grid"), "needed 'anna-sidecar'"),
    "deep provenance": (attribute("provenance", "[" * 5000 + "]" * 5000), "nested|damaged|no table"),
    "provenance no table": (attribute("provenance", "3"), "no table"),
    "provenance of numbers": (attribute("provenance", '{"metrics": 3}'), "no table"),
    "preparation of text": (attribute("preparation", '{"min_coverage": "all"}'), "preparation"),
    "pixels without end": (attribute("preparation", '{"unseen": [[0, Infinity]]}'), "preparation"),
    "preparation infinite": (attribute("preparation", '{"snr_range": [1, Infinity]}'), "finite"),
}


@pytest.mark.parametrize("case", HOSTILE_SIDECARS)
def test_sidecars_that_are_not_what_they_say_are_refused(tmp_path: Path, case: str) -> None:
    edit, why = HOSTILE_SIDECARS[case]
    with_sidecar(tmp_path / "model.onnx", tiny.network(), tiny.sidecar(), edit)
    refused(tmp_path / "model.onnx", why)
    if "version" in why or "upgrade" in why:
        with pytest.raises(VersionError):
            Bundle.load(tmp_path / "model.onnx")


def test_a_sidecar_that_is_no_hdf5_is_refused(path: Path) -> None:
    path.with_suffix(".h5").write_bytes(b"PK\x03\x04" + bytes(1000))
    refused(path, "damaged")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    refused(tmp_path, "not a file")
    refused(tmp_path / "absent.onnx", "no such file")


def test_labels_that_the_network_does_not_give_are_refused(tmp_path: Path) -> None:
    three = (*tiny.LABELS, Label("feh", -1, 1))
    with_sidecar(tmp_path / "model.onnx", tiny.network(), tiny.sidecar(labels=three, selftest=None))
    refused(tmp_path / "model.onnx", r"needed \[\(1, 3\), \(1, 3\)\]")


def test_a_device_that_is_not_there_is_named() -> None:
    bundle = Bundle("tiny", tiny.network(), tiny.sidecar())
    with pytest.raises(BundleError, match="has only cpu"):
        Session(bundle, device="coreml")
    with pytest.raises(BundleError, match="needed one of cpu, cuda"):
        Session(bundle, device="gpu")


def test_the_card_says_what_the_bundle_holds(path: Path) -> None:
    card = model_card(Bundle.load(path))
    assert "teff" in card
    assert "| teff | 3000 to 8000 K | K |" in card
    assert "- run: by hand" in card
    assert "--covariance" not in card
    assert "`--covariance` adds" in model_card(Bundle("tiny", b"", tiny.sidecar(provenance={"covariance": True})))


def test_a_damaged_heap_is_refused(path: Path) -> None:
    content = bytearray(path.with_suffix(".h5").read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)  # free space of no bytes
    path.with_suffix(".h5").write_bytes(content)
    refused(path, "global heap")


TEXT = bytes.fromhex("1901010010000000")  # a type of variable length (9), text (1) in UTF-8 (1), 16 bytes in the file


def places(pattern: bytes, content: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(pattern), content)]


@pytest.mark.parametrize("kind", [0, 2, 3, 9, 15])
def test_a_text_of_a_kind_that_does_not_exist_is_refused(kind: int) -> None:
    content = tiny.sidecar().to_bytes()
    found = places(TEXT, content)
    assert len(found) == 10  # seven attributes, three datasets
    refusals = []
    for at in found:
        try:
            Sidecar.from_bytes(content[: at + 1] + bytes([kind]) + content[at + 2 :], "model.h5")
        except BundleError as error:
            refusals.append(str(error))
    assert len(refusals) == 9  # nobody reads the unit of the wavelengths
    assert all(re.fullmatch("model.h5: .* (is not one text|needed at most 1000 texts)", line) for line in refusals)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (8, 1 << 40, "global heap of 1099511627776 bytes"),  # of the collection
        (8, 2**64 - 1, "global heap of"),
        (24, 1 << 20, "a piece of 1048576 bytes"),  # of the first text
        (24, 2**64 - 1, "a piece of"),
        (24, 4080, "a piece of 4080 bytes"),  # just over what is left
        (16, 0, "a piece of"),  # the first text as free space
    ],
)
def test_a_heap_whose_pieces_do_not_fit_is_refused(path: Path, at: int, value: int, why: str) -> None:
    content = bytearray(path.with_suffix(".h5").read_bytes())
    heap = content.index(b"GCOL")
    assert int.from_bytes(content[heap + 8 : heap + 16], "little") == 4096
    content[heap + at : heap + at + 8] = value.to_bytes(8, "little")
    path.with_suffix(".h5").write_bytes(content)
    refused(path, why)


def test_a_sidecar_with_bytes_before_it_or_odd_widths_is_refused(path: Path) -> None:
    content = path.with_suffix(".h5").read_bytes()
    path.with_suffix(".h5").write_bytes(bytes(512) + content)  # libhdf5 would find it
    refused(path, "does not begin as HDF5")
    path.with_suffix(".h5").write_bytes(content[:14] + b"\x20" + content[15:])
    refused(path, "lengths of 32 bytes")


def test_damage_to_any_reference_to_a_text_is_refused_or_harmless() -> None:
    content = tiny.sidecar().to_bytes()
    heap = content.index(b"GCOL")
    references = [at - 4 for at in places(heap.to_bytes(8, "little"), content)]
    assert len(references) >= 7
    for at in (at + i for at in references for i in range(16)):  # length, address and number of the piece
        for value in (0, 0xFF):
            with contextlib.suppress(BundleError):
                Sidecar.from_bytes(content[:at] + bytes([value]) + content[at + 1 :], "model.h5")


@pytest.mark.parametrize(("stated", "found"), [({}, "no format is stated"), ({"format": "x"}, "format 'x'")])
def test_another_file_of_the_name_of_the_sidecar_is_to_be_removed(
    path: Path, stated: dict[str, str], found: str
) -> None:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.attrs.update(stated)
    refused(path, rf"\.h5: not a sidecar of anna-onnx \({found}, needed 'anna-sidecar'\); remove or rename it")


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file["novelty"].attrs["false_alarm"] = "often"

    with_sidecar(tmp_path / "model.onnx", tiny.network(), full_sidecar(), edit)
    refused(tmp_path / "model.onnx", "needed a number")


def test_a_damaged_sidecar_is_not_written_over(path: Path) -> None:
    content = bytearray(path.with_suffix(".h5").read_bytes())
    content[content.index(TEXT) + 1] = 3  # the type of the first attribute, 'format'
    path.with_suffix(".h5").write_bytes(content)
    with pytest.raises(BundleError, match="not the sidecar of a model"):
        write(path, tiny.network(), tiny.sidecar())


def test_a_training_set_is_not_replaced_by_a_sidecar_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "train.h5").write_bytes(b"years of work")
    with pytest.raises(BundleError, match="not the sidecar of a model"):
        write(tmp_path / "train.onnx", tiny.network(), tiny.sidecar())
    assert (tmp_path / "train.h5").read_bytes() == b"years of work"
    assert not (tmp_path / "train.onnx").exists()


def test_the_card_has_room_for_what_its_maker_says() -> None:
    def card(**provenance: str) -> str:
        return model_card(Bundle("tiny", b"", tiny.sidecar(provenance=provenance)))

    assert "## Limits\n\nNo giants.\n\n## Made" in card(notes="## Limits\n\nNo giants.\n")
    assert card(notes=" \n") == card()


def test_a_model_that_was_measured_on_nothing_does_not_say_that_it_was() -> None:
    assert "Measured" not in model_card(Bundle("tiny", b"", tiny.sidecar(provenance={})))
    numbers = dict.fromkeys(("bias", "scatter", "robust_scatter", "rms", "coverage_68"), 1.0)
    measured = tiny.sidecar(provenance={"metrics": {"teff": numbers}})
    assert "Measured on the validation set" in model_card(Bundle("tiny", b"", measured))
