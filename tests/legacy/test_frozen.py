"""frozen.model: read without TensorFlow, converted to ONNX, and refused when it is not ANNA's."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from anna_onnx import config, wire
from anna_onnx.bundle import Bundle
from anna_onnx.errors import LegacyError, MissingExtraError
from anna_onnx.labels import Label, scale
from anna_onnx.legacy.frozen import FrozenNetwork, network_from_frozen
from anna_onnx.legacy.graph import onnx_bytes
from anna_onnx.legacy.models import convert_frozen
from anna_onnx.legacy.residuals import read_test_stats
from anna_onnx.readers import read_spectra

UNIT_LABELS = (Label("a", 0, 1), Label("b", 0, 1))

# --- GraphDefs written by hand --------------------------------------------------


def text(number: int, content: str) -> bytes:
    return wire.encode_bytes(number, content.encode())


def small(number: int, value: int) -> bytes:
    """A varint field with a value below 128."""
    return bytes([number << 3, value])


def attr(name: str, value: bytes) -> bytes:
    return wire.encode_bytes(5, text(1, name) + wire.encode_bytes(2, value))


def node(name: str, op: str, *inputs: str, attrs: bytes = b"") -> bytes:
    content = text(1, name) + text(2, op) + b"".join(text(3, one) for one in inputs) + attrs
    return wire.encode_bytes(1, content)


def tensor(values: np.ndarray, shape: bytes | None = None) -> bytes:
    dims = b"".join(wire.encode_bytes(2, small(1, size)) for size in values.shape) if shape is None else shape
    content = small(1, 1) + wire.encode_bytes(2, dims) + wire.encode_bytes(4, values.astype("<f4").tobytes())
    return attr("value", wire.encode_bytes(8, content))


def weights(kernel: int = 4, filters: int = 3, n_pixel: int = 9) -> dict[str, np.ndarray]:
    random = np.random.default_rng(kernel).normal
    return {
        "conv": random(size=(1, kernel, 1, filters)),
        "conv_bias": random(size=filters),
        "fc1": random(size=(n_pixel * filters, 6)),
        "fc1_bias": random(size=6),
        "fc2": random(size=(6, 4)),
        "fc2_bias": random(size=4),
        "fc3": random(size=(4, 2)),
    }


def dropout(layer: str, kind: str) -> tuple[bytes, str]:
    """The nodes of a dropout as TensorFlow wrote it in different years, and the name of its end."""
    source, scope = f"{layer}/Relu", f"{layer}/dropout"
    random = node(f"{scope}/random", "RandomUniform", f"{scope}/Shape") + node(f"{scope}/Shape", "Shape", source)
    scaled = node(f"{scope}/scaled", "RealDiv", source, "keep")
    compare = node(f"{scope}/compare", "GreaterEqual", f"{scope}/random", "keep")
    if kind == "floor":
        gate = node(f"{scope}/add", "Add", "keep", f"{scope}/random") + node(f"{scope}/Floor", "Floor", f"{scope}/add")
        return random + scaled + gate + node(f"{scope}/mul", "Mul", f"{scope}/scaled", f"{scope}/Floor"), f"{scope}/mul"
    if kind == "cast":
        gate = compare + node(f"{scope}/Cast", "Cast", f"{scope}/compare")
        return random + scaled + gate + node(f"{scope}/mul", "Mul", f"{scope}/scaled", f"{scope}/Cast"), f"{scope}/mul"
    zero = node(f"{scope}/zero", "Const", attrs=tensor(np.zeros(())))
    select = node(f"{scope}/select", "SelectV2", f"{scope}/compare", f"{scope}/scaled", f"{scope}/zero")
    return random + scaled + compare + zero + select, f"{scope}/select"


def graphdef(arrays: dict[str, np.ndarray], kind: str = "select", padding: str = "SAME", strides: bytes = b"") -> bytes:
    constants = b"".join(node(name, "Const", attrs=tensor(values)) for name, values in arrays.items())
    strides = strides or attr("strides", wire.encode_bytes(1, wire.encode_bytes(3, bytes([1, 1, 1, 1]))))
    drop1, end1 = dropout("FC1_LAYER", kind)
    drop2, end2 = dropout("FC2_LAYER", kind)
    return b"".join(
        [
            constants,
            node("keep", "Placeholder"),
            node("queue", "QueueDequeueManyV2"),
            node("MASTER_QUEUE/px", "Identity", "queue:1"),
            node("image", "Reshape", "MASTER_QUEUE/px", "shape"),
            node("conv/read", "Identity", "conv"),
            node("Conv2D", "Conv2D", "image", "conv/read", attrs=attr("padding", text(2, padding)) + strides),
            node("conv/add", "AddV2", "Conv2D", "conv_bias"),
            node("conv/Relu", "Relu", "conv/add"),
            node("Flatten", "Reshape", "conv/Relu", "shape"),
            node("fc1/MatMul", "MatMul", "Flatten", "fc1"),
            node("fc1/add", "Add", "fc1/MatMul", "fc1_bias"),
            node("FC1_LAYER/Relu", "Relu", "fc1/add"),
            drop1,
            node("fc2/MatMul", "MatMul", end1, "fc2"),
            node("fc2/add", "BiasAdd", "fc2/MatMul", "fc2_bias"),
            node("FC2_LAYER/Relu", "Relu", "fc2/add"),
            drop2,
            node("FC3_LAYER/fc_output", "MatMul", end2, "fc3"),
        ]
    )


def network_of(folder: Path, content: bytes) -> FrozenNetwork:
    path = folder / "frozen.model"
    path.write_bytes(content)
    return network_from_frozen(path)


def run(content: bytes, flux: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    labels, sigma = session.run(["labels", "sigma"], {"flux": np.asarray(flux, np.float32)})
    return labels, sigma


# --- real networks ----------------------------------------------------------------


@pytest.fixture(params=["", "tutorial"], ids=["short", "tutorial"])
def real(shared, request):
    folder = shared / "legacy" / request.param
    return network_from_frozen(folder / "frozen.model"), np.load(folder / "verify_64.npz")


def test_the_answers_of_tensorflow_come_out(real):
    network, truth = real
    labels = [
        Label(f"x{i}", *ends) for i, ends in enumerate(zip(truth["min_params"], truth["max_params"], strict=True))
    ]
    inferred, sigma = run(onnx_bytes(network, labels), truth["spectra"])
    assert_allclose(scale(inferred, labels), truth["outputs_normalised"], rtol=0, atol=1e-5)
    assert np.isnan(sigma).all()
    assert sigma.shape == inferred.shape


def test_numpy_agrees_with_tensorflow(real):
    network, truth = real
    assert str(network) == "1001 pixels, convolution 45 x 10, dense 128 and 128, 5 labels"
    assert_allclose(network.infer(truth["spectra"]), truth["outputs_normalised"], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def converted(shared, tmp_path_factory):
    """A real network as a bundle, with the notes of the conversion."""
    old, target = shared / "legacy", tmp_path_factory.mktemp("model") / "model.onnx"
    notes = convert_frozen(
        old / "frozen.model",
        target,
        old / "ANNA.param",
        shared / "wavelength.template",
        test_stats=old / "test_stats.out",
    )
    return Bundle.load(target), notes


def test_the_bundle_is_whole(converted, shared):
    bundle, notes = converted
    truth = np.load(shared / "legacy" / "verify_64.npz")
    assert [label.name for label in bundle.sidecar.labels] == ["teff", "logg", "feh", "vmic", "vsini"]
    assert_array_equal(bundle.sidecar.grid.wavelength, truth["wavelengths"])
    inferred, _ = run(bundle.network, truth["spectra"])
    assert_allclose(scale(inferred, bundle.sidecar.labels), truth["outputs_normalised"], rtol=0, atol=1e-5)
    assert bundle.sidecar.preparation.snr_range == (175, 250)
    assert "CONV1_SHAPE" in bundle.sidecar.provenance["anna_param"]
    assert any("test_stats.out" in note for note in notes)


def test_errors_are_the_rms_of_the_old_residuals(converted, shared):
    bundle, _ = converted
    table = np.loadtxt(shared / "legacy" / "test_stats.out", delimiter=",")
    expected = np.sqrt((table[:, 6:] ** 2).mean(axis=0))
    assert_allclose(run(bundle.network, np.ones((3, 1001)))[1], np.tile(expected, (3, 1)), rtol=1e-6)
    metrics = bundle.sidecar.provenance["metrics"]
    assert_allclose([one["rms"] for one in metrics.values()], expected)
    assert_allclose([one["bias"] for one in metrics.values()], -table[:, 6:].mean(axis=0))


def test_intervals_hold_what_they_promise(converted, shared):
    calibration = converted[0].sidecar.calibration
    errors = np.loadtxt(shared / "legacy" / "test_stats.out", delimiter=",")[:, 6:]
    sigma = np.tile(np.sqrt((errors**2).mean(axis=0)), (len(errors), 1))
    for level in (0.6827, 0.95):
        inside = np.abs(errors) <= calibration.half_width(sigma, np.full(len(errors), np.nan), level)
        assert_allclose(inside.mean(axis=0), level, atol=0.011)


def test_real_spectra_give_what_the_old_program_gave(converted, shared):
    bundle, _ = converted
    spectra = read_spectra(shared / "fits" / "jun2011_3133.fits")
    flux = np.stack([bundle.sidecar.preparation.prepare(spectrum).flux for spectrum in spectra])
    old = np.loadtxt(shared / "legacy" / "jun2011_infer.out", delimiter=",")
    span = [label.span for label in bundle.sidecar.labels]
    assert_allclose(run(bundle.network, flux)[0] / span, old[:, 1:] / span, rtol=0, atol=1e-5)


def test_how_it_was_trained_rides_along(shared, tmp_path):
    old = shared / "legacy"
    (tmp_path / "ANNA.param").write_bytes((old / "ANNA.param").read_bytes())
    (tmp_path / "sn.robo.template").write_bytes((shared / "sn.robo.template").read_bytes())
    arguments = tmp_path / "m.onnx", tmp_path / "ANNA.param", shared / "wavelength.template"
    notes = convert_frozen(old / "frozen.model", *arguments)
    provenance = Bundle.load(tmp_path / "m.onnx").sidecar.provenance
    assert config.loads(provenance["params"]).augmentation.legacy_noise
    assert len(provenance["snr_template"]) == 1001
    # The noise was multiplied by the template.
    drawn = np.array([175, 250]) / np.median(provenance["snr_template"])
    assert_allclose(Bundle.load(tmp_path / "m.onnx").sidecar.preparation.snr_range, drawn, rtol=0.005)
    assert any("all NaN" in note for note in notes)
    (tmp_path / "sn.robo.template").unlink()
    assert any("--as-is" in note for note in convert_frozen(old / "frozen.model", *arguments))


def test_the_self_test_gives_its_answers_again(converted):
    selftest = converted[0].sidecar.selftest
    assert_allclose(run(converted[0].network, selftest.flux)[0], selftest.labels, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 90])
def test_any_batch_size_gives_the_same_answer(converted, batch):
    flux = np.random.default_rng(1).normal(1, 0.1, (90, 1001))
    whole = run(converted[0].network, flux)[0]
    assert_allclose(run(converted[0].network, flux[:batch])[0], whole[:batch], rtol=1e-5)


def test_a_missing_pixel_counts_as_continuum(converted):
    flux = np.full((2, 1001), 0.9)
    flux[0, 100:200], flux[1, 100:200] = np.nan, 1.0
    labels, _ = run(converted[0].network, flux)
    assert_array_equal(labels[0], labels[1])


def test_wavelengths_may_come_from_a_training_set(shared, tmp_path):
    old = shared / "legacy"
    convert_frozen(old / "frozen.model", tmp_path / "m.onnx", old / "ANNA.param", shared / "valid_1000.bin")
    assert Bundle.load(tmp_path / "m.onnx").sidecar.grid.n_pixel == 1001


# --- networks made for the test -------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 2, 4, 5])
@pytest.mark.parametrize("kind", ["floor", "cast", "select"])
def test_every_kernel_and_every_dropout(tmp_path, kernel, kind):
    arrays = weights(kernel)
    network = network_of(tmp_path, graphdef(arrays, kind))
    flux = np.random.default_rng(0).normal(1, 0.3, (5, 9)).astype(np.float32)
    # TensorFlow's definition: output pixel i sees input pixels i - left ... i - left + kernel - 1.
    left = (kernel - 1) // 2
    padded = np.pad(flux, ((0, 0), (left, kernel)))
    seen = np.stack([padded[:, i : i + kernel] for i in range(9)], axis=1)
    hidden = np.maximum(seen @ arrays["conv"][0, :, 0] + arrays["conv_bias"], 0).reshape(5, -1)
    hidden = np.maximum(hidden @ arrays["fc1"] + arrays["fc1_bias"], 0)
    expected = np.maximum(hidden @ arrays["fc2"] + arrays["fc2_bias"], 0) @ arrays["fc3"]
    assert_allclose(network.infer(flux), expected, rtol=1e-4, atol=1e-4)
    assert_allclose(run(onnx_bytes(network, UNIT_LABELS), flux)[0], expected, rtol=1e-4, atol=1e-4)


def test_labels_come_out_in_their_units(tmp_path):
    network = network_of(tmp_path, graphdef(weights()))
    flux = np.ones((1, 9))
    scaled = run(onnx_bytes(network, UNIT_LABELS), flux)[0]
    inferred = run(onnx_bytes(network, (Label("teff", 4000, 7000), Label("logg", 2, 5)), [50, 0.1]), flux)
    assert_allclose(inferred[0], scaled * [3000, 3] + [4000, 2], rtol=1e-6)
    assert_allclose(inferred[1], [[50, 0.1]])


def test_the_network_uses_an_old_opset_and_one_file(tmp_path):
    onnx = pytest.importorskip("onnx")

    model = onnx.load(io.BytesIO(onnx_bytes(network_of(tmp_path, graphdef(weights())), UNIT_LABELS)))
    assert model.opset_import[0].version <= 18
    assert not any(tensor.data_location for tensor in model.graph.initializer)


def test_onnx_is_asked_for_by_its_extra(tmp_path, monkeypatch):
    network = network_of(tmp_path, graphdef(weights()))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"anna-onnx\[train\]"):
        onnx_bytes(network, UNIT_LABELS)


# --- what is refused --------------------------------------------------------------


def changed(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {**weights(), name: values}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no node FC3_LAYER/fc_output among its 0 nodes"),
        (graphdef(weights(), padding="VALID"), "Conv2D has padding VALID, needed SAME"),
        (graphdef(weights(), strides=attr("strides", b"")), "has strides"),
        (graphdef(changed("conv", np.ones((3, 4, 1, 3)))), "kernel of shape"),
        (graphdef(changed("conv_bias", np.ones(4))), "convolution and its bias do not fit: 3 and 4"),
        (graphdef(changed("fc1", np.ones((28, 6)))), "pixels x filters and FC1 do not fit: 27 and 28"),
        (graphdef(changed("fc2", np.ones((5, 4)))), "FC1 and FC2 do not fit: 6 and 5"),
        (graphdef(changed("fc3", np.full((4, 2), np.nan))), "fc3_weight holds values that are not finite"),
        (graphdef(weights()).replace(b"Relu", b"Tanh"), "needed Relu"),
        (graphdef(weights()).replace(b"RandomUniform", b"NotSoUnifrom!"), "which is no dropout"),
        (graphdef(weights()) + node("fc3", "Placeholder"), "fc3 is Placeholder, needed a constant"),
        (graphdef(weights()) + node("fc3", "Identity", "fc3"), "goes round in a circle"),
        (graphdef(weights()) + node("image", "Reshape", "queue", "shape"), "needed MASTER_QUEUE/px"),
        (graphdef(weights()) + node("fc3", "Identity", "nowhere"), "no node nowhere"),
        (
            graphdef(weights())
            + node("FC3_LAYER/fc_output", "MatMul", "x", "fc3", attrs=attr("transpose_b", small(5, 1))),
            "transpose_b",
        ),
        (
            graphdef(weights())
            + node("fc3", "Const", attrs=tensor(np.ones(1), wire.encode_bytes(2, b"\x08" + b"\xff" * 8 + b"\x7f"))),
            "modest size",
        ),
        (node("x", "y") * 3000, "more than 2000 fields"),
    ],
)
def test_other_graphs_are_refused_with_what_was_found(tmp_path, content, message):
    with pytest.raises(LegacyError, match=message) as caught:
        network_of(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_few_values_stand_for_many(tmp_path):
    shape = wire.encode_bytes(2, b"".join(wire.encode_bytes(2, small(1, size)) for size in (4,)))
    content = small(1, 1) + shape + wire.encode_bytes(5, np.float32([0.25]).tobytes())
    bias = node("fc2_bias", "Const", attrs=attr("value", wire.encode_bytes(8, content)))
    assert_array_equal(network_of(tmp_path, graphdef(weights()) + bias).fc2_bias, [0.25] * 4)


WHOLE = graphdef(weights())


@settings(max_examples=200, deadline=2000)
@given(cut=st.integers(0, len(WHOLE) - 1))
def test_a_truncated_file_is_refused(tmp_path_factory, cut):
    with pytest.raises(LegacyError):
        network_of(tmp_path_factory.mktemp("cut"), WHOLE[:cut])


@settings(max_examples=300, deadline=2000)
@given(changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, changes):
    content = bytearray(WHOLE)
    for position, value in changes:
        content[position] = value
    try:
        network = network_of(tmp_path_factory.mktemp("damaged"), bytes(content))
    except LegacyError:
        return
    assert network.infer(np.ones((1, network.n_pixel))).shape == (1, network.n_label)


def test_a_file_of_many_nodes_is_refused_quickly(tmp_path):
    begin = time.perf_counter()
    with pytest.raises(LegacyError):
        network_of(tmp_path, node("x", "y") * 500_000)
    assert time.perf_counter() - begin < 2


# --- what goes with it --------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("NUM_PX: 1001", "NUM_PX: 1000"), "NUM_PX is 1000, but the network has 1001 pixels"),
        (("MIN_PARAMS: 4000.0, 2.7, -0.5, 0.0, 0.0\n", ""), "no MIN_PARAMS"),
        (("NUM_OUTS: 5\n", "NUM_OUTS: 5\n"), ""),
    ],
)
def test_parameters_must_fit_the_network(shared, tmp_path, change, message):
    old = shared / "legacy"
    text = (old / "ANNA.param").read_text(encoding="utf-8").replace(*change)
    (tmp_path / "ANNA.param").write_text(text, encoding="utf-8")
    arguments = old / "frozen.model", tmp_path / "m.onnx", tmp_path / "ANNA.param", shared / "wavelength.template"
    if not message:
        convert_frozen(*arguments)
        return
    with pytest.raises(LegacyError, match=message):
        convert_frozen(*arguments)
    assert not (tmp_path / "m.onnx").exists()


def test_wavelengths_must_be_as_many_as_pixels(shared, tmp_path):
    old = shared / "legacy"
    np.savetxt(tmp_path / "short.txt", np.arange(6000, 6010))
    with pytest.raises(LegacyError, match="10 wavelengths, but the network has 1001 pixels"):
        convert_frozen(old / "frozen.model", tmp_path / "m.onnx", old / "ANNA.param", tmp_path / "short.txt")


def test_residuals_are_found_by_name(tmp_path):
    path = tmp_path / "test_stats.out"
    path.write_text("# star_id,true_a,true_b,da,db\n0,1,1,3,0.5\n1,1,1,-4,0.5\n", encoding="utf-8")
    residuals = read_test_stats(path, ["b", "a"])
    assert_array_equal(residuals.errors, [[-0.5, -3], [-0.5, 4]])
    assert_allclose(residuals.rms, [0.5, np.sqrt(12.5)])
    with pytest.raises(LegacyError, match="needed dc"):
        read_test_stats(path, ["a", "c"])
    path.write_text("no table\n", encoding="utf-8")
    with pytest.raises(LegacyError):
        read_test_stats(path, ["a"])
