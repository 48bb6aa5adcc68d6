"""Weights stored small: what is rounded, what is not, and what the file says of it."""

from __future__ import annotations

import dataclasses
import logging
from functools import cache
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="exporting needs the extra 'train'")
torch = pytest.importorskip("torch", reason="exporting needs the extra 'train'")

from hypothesis import given, settings
from hypothesis import strategies as st

from anna_onnx import config
from anna_onnx.bundle import Bundle
from anna_onnx.card import model_card
from anna_onnx.coverage import Coverage
from anna_onnx.errors import TrainingError
from anna_onnx.graphcheck import check_network
from anna_onnx.labels import Label
from anna_onnx.novelty import Novelty
from anna_onnx.preparation import Preparation
from anna_onnx.resampling import Grid
from anna_onnx.session import Session
from anna_onnx.sidecar import Sidecar
from anna_onnx.synthesis import simulate
from anna_onnx.training.calibration_set import calibrating, calibration_set
from anna_onnx.training.checkpoint import RunDirectory
from anna_onnx.training.export import describe_size, export
from anna_onnx.training.frozen import IR_VERSION, OPSET, Frozen, to_onnx
from anna_onnx.training.loop import train
from anna_onnx.training.network import Network
from anna_onnx.training.precision import INT8_MAX, shorten, store
from anna_onnx.training.seen import describe_preparation
from anna_onnx.training.task import load_augmentation, prepare_task

LABELS = (Label("teff", 4000, 7000, "K"), Label("logg", 2, 5))
GRID = Grid(np.linspace(6600, 6660, 301), "air")
ANNA = config.Network(sizes=config.Anna(filters=6, kernel=15, fc1=40, fc2=32))
COMPACT = config.Network(architecture="compact", uncertainty=True, members=2, sizes=config.Compact(width=8, stages=2))
CORRELATED = dataclasses.replace(COMPACT, covariance=True)
PARAMS = """
[data]
train = "train.h5"
validation = "validation.h5"
[network]
fc1 = 64
[augmentation]
snr = [100.0, 300.0]
[[stage]]
learning_rate = 2e-3
steps = 60
[validation]
interval = 30
[run]
threads = 1
"""

GRID_PARAMS = """
[data]
grid = "default"
wavelength = [6625, 6645, 0.2]
resolution = 11000
radial_velocity = [-50, 50]
[augmentation]
radial_velocity = [-10, 5]
[[stage]]
learning_rate = 1e-3
steps = 1
"""


@cache
def network_file(settings: config.Network) -> bytes:
    torch.manual_seed(1)
    return to_onnx(Frozen(Network(GRID.n_pixel, 2, settings), LABELS, None).eval(), GRID.n_pixel)


@pytest.fixture(scope="module", params=[ANNA, COMPACT, CORRELATED], ids=["anna", "compact", "correlated"])
def network(request) -> bytes:
    return network_file(request.param)


def answers(network: bytes, n: int = 3) -> np.ndarray:
    """Return labels and sigma of some spectra, in label ranges."""
    bundle = Bundle("a", network, Sidecar(LABELS, Preparation(GRID)))
    flux = 1 - 0.1 * np.random.default_rng(3).random((n, GRID.n_pixel), dtype=np.float32)
    span = np.array([label.span for label in LABELS])
    return np.concatenate(Session(bundle, threads=1).run(flux)[:2], axis=1) / np.tile(span, 2)


def tensors(network: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_from_string(network).graph
    return {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_network_is_valid_onnx_of_an_old_version(network, precision):
    model = onnx.load_from_string(store(network, precision))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (IR_VERSION, OPSET)
    assert len(model.opset_import) == 1


def test_correlations_are_an_output_of_networks_that_infer_them_and_of_no_others():
    outputs = {
        settings: [one.name for one in onnx.load_from_string(network_file(settings)).graph.output]
        for settings in (ANNA, COMPACT, CORRELATED)
    }
    assert outputs[ANNA] == outputs[COMPACT] == ["labels", "sigma"]
    assert outputs[CORRELATED] == ["labels", "sigma", "correlation"]


@pytest.mark.parametrize("n_label", [1, 5])
def test_correlations_survive_the_export(n_label):
    torch.manual_seed(1)
    labels = tuple(Label(f"x{i}", 0, 10.0**i) for i in range(n_label))
    network = Network(GRID.n_pixel, n_label, CORRELATED)
    frozen = Frozen(network, labels, None).eval()
    bundle = Bundle("a", to_onnx(frozen, GRID.n_pixel), Sidecar(labels, Preparation(GRID)))
    flux = 1 - 0.1 * torch.rand(300, GRID.n_pixel)
    flux[5, 100:200] = torch.nan
    check_network(bundle.network, bundle.name)
    session = Session(bundle, threads=1)
    assert session.correlates == (n_label > 1)
    assert frozen.output_names == ["labels", "sigma", "correlation"][: 2 + session.correlates]
    with torch.no_grad():
        ours = [part.numpy() for part in frozen(flux)]
    for mine, theirs in zip(ours, session.run_whole(flux.numpy()), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-4, atol=1e-5)


def test_float32_is_left_as_it_is(network):
    assert store(network, "float32") is network


def test_float16_halves_and_int8_quarters_the_weights():
    full, half, quarter = (len(store(network_file(ANNA), name)) for name in ("float32", "float16", "int8"))
    assert half < 0.53 * full
    assert quarter < 0.30 * full


def test_float16_weights_are_those_of_float32_rounded_once(network):
    full, stored = tensors(network), tensors(store(network, "float16"))
    halves = {name.removesuffix("_float16"): value for name, value in stored.items() if name.endswith("_float16")}
    assert halves
    for name, value in halves.items():
        assert value.dtype == np.float16
        np.testing.assert_array_equal(value, full[name].astype(np.float16))


def test_biases_and_what_scales_flux_and_labels_stay_float32(network):
    full, stored = tensors(network), tensors(store(network, "int8"))
    kept = [name for name in full if full[name].ndim < 2 or full[name].size < 1024]
    assert {"low", "span", "network.inputs.fill"} <= set(kept)
    for name in kept:
        np.testing.assert_array_equal(stored[name], full[name])


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_arithmetic_is_float32_on_the_stored_weights(network, precision):
    """onnxruntime's answers are those of a float32 network with the rounded weights written out."""
    model = onnx.load_from_string(network)
    stored = tensors(store(network, precision))
    axes = {node.output[0]: node.attribute[0].i for node in onnx.load_from_string(store(network, "int8")).graph.node
            if node.op_type == "DequantizeLinear"}  # fmt: skip
    for tensor in model.graph.initializer:
        if f"{tensor.name}_float16" in stored:
            rounded = stored[f"{tensor.name}_float16"].astype(np.float32)
        elif f"{tensor.name}_int8" in stored:
            steps = stored[f"{tensor.name}_int8"].astype(np.float32)
            shape = [-1 if i == axes[tensor.name] else 1 for i in range(steps.ndim)]
            rounded = steps * stored[f"{tensor.name}_step"].reshape(shape)
        else:
            continue
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
    np.testing.assert_allclose(answers(store(network, precision)), answers(model.SerializeToString()), atol=1e-5)


def test_every_row_of_int8_has_its_own_step_and_is_off_by_half_of_it_at_most():
    network = network_file(ANNA)
    name = "network.members.0.3.weight"
    weight, stored = tensors(network)[name], tensors(store(network, "int8"))
    step = stored[f"{name}_step"]
    assert step.shape == (40,)  # fc1 outputs
    np.testing.assert_allclose(step, np.abs(weight).max(axis=1) / INT8_MAX, rtol=1e-6)
    assert (np.abs(stored[f"{name}_int8"] * step[:, None] - weight) <= 0.5001 * step[:, None]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 6), st.booleans(), st.integers(13, 50), st.integers(80, 100))
def test_int8_steps_belong_to_the_outputs_of_any_dense_layer(seed, transposed, n_out, n_in):
    """A row of weights as small as you like keeps its relative precision."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(n_out, n_in)) * 10.0 ** random.uniform(-6, 1, (n_out, 1))
    weight[0] = 0
    made = store(dense_layer(weight if transposed else weight.T, transposed), "int8")
    stored = tensors(made)
    steps = stored["weight_int8"].astype(np.float64)
    rounded = (steps if transposed else steps.T) * stored["weight_step"][:, np.newaxis]
    assert (np.abs(rounded - weight).max(axis=1) <= np.abs(weight).max(axis=1) / 253).all()


def dense_layer(weight: np.ndarray, transposed: bool) -> bytes:
    """Return a network of one dense layer: Gemm with a transposed weight, or MatMul."""
    from onnx import TensorProto, helper

    n_out = weight.shape[0 if transposed else 1]
    n_in = weight.size // n_out
    node = helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1) if transposed else helper.make_node(
        "MatMul", ["x", "weight"], ["y"])  # fmt: skip
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, n]) for name, n in (("x", n_in), ("y", n_out))
    ]
    tensor = onnx.numpy_helper.from_array(weight.astype(np.float32), "weight")
    return helper.make_model(helper.make_graph([node], "dense", ends[:1], ends[1:], [tensor])).SerializeToString()


def test_a_weight_beyond_float16_is_refused():
    weight = np.ones((40, 40))
    weight[3, 4] = 1e5
    with pytest.raises(TrainingError, match="holds 1e\\+05, float16 ends at 65504"):
        store(dense_layer(weight, transposed=True), "float16")


def test_a_short_novelty_gives_the_same_remainders():
    random = np.random.default_rng(1)
    directions, _ = np.linalg.qr(random.normal(size=(300, 20)))
    novelty = Novelty(np.ones(300), directions.T, np.ones(1), np.ones(1), 0.01)
    flux = 1 + 0.3 * random.normal(size=(50, 20)) @ directions.T + random.normal(0, 0.01, (50, 300))
    flux = flux.astype(np.float32)
    short = shorten(novelty)
    assert short.components.dtype == np.float16
    np.testing.assert_allclose(short.remainder(flux), novelty.remainder(flux), rtol=0.01)


# --- From a run to a file -----------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    work = tmp_path_factory.mktemp("run")
    for name, n, seed in (("train.h5", 300, 1), ("validation.h5", 100, 2)):
        simulate(None, work / name, n, seed=seed, processes=1)
    (work / "params.toml").write_text(PARAMS, encoding="utf-8")
    return train(config.load(work / "params.toml"), say=lambda text: None)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("exported")
    for name in ("float32", "float16", "int8"):
        export(run, work / f"{name}.onnx", name, lambda text: None, "## Limits\n\nNo giants.\n")
    return {path.stem: path for path in work.glob("*.onnx")}


def test_a_float16_file_is_half_of_a_float32_file_with_its_sidecar(exported):
    size = {name: path.stat().st_size for name, path in exported.items()}
    assert size["float16"] <= size["float32"] / 2 + 80e3  # wavelengths, emulator, self-test and provenance stay
    assert size["int8"] < 0.7 * size["float16"]  # what spectra are compared with stays in float16


def test_what_people_should_know_of_a_model_travels_in_it(exported):
    bundle = Bundle.load(exported["float16"])
    assert "No giants." in model_card(bundle)
    assert exported["float16"].with_suffix(".md").read_text(encoding="utf-8") == model_card(bundle)


def test_every_precision_infers_and_passes_its_self_test(exported):
    for path in exported.values():
        bundle = Bundle.load(path)
        test = bundle.sidecar.selftest
        values, sigma, *_ = Session(bundle, threads=1).run(test.flux)
        span = np.array([label.span for label in bundle.sidecar.labels])
        assert np.abs((values - test.labels) / span).max() < 1e-5
        assert np.abs((sigma - test.sigma) / span).max() < 1e-5


def test_what_storing_small_does_to_each_label_is_measured(exported):
    for name, least, most in (("float16", 1e-6, 0.02), ("int8", 1e-4, 0.5)):
        about = Bundle.load(exported[name]).sidecar.provenance
        assert about["precision"]["stored"] == name
        for label, effect in about["precision"]["effect"].items():
            assert effect["rms"] == pytest.approx(about["metrics"][label]["rms"])
            assert least < effect["difference"] / effect["rms_float32"] < most
            # |rms(a) - rms(b)| <= rms(a - b), the triangle inequality.
            assert abs(effect["rms"] - effect["rms_float32"]) <= effect["difference"] * (1 + 1e-9)
    assert Bundle.load(exported["float32"]).sidecar.provenance["precision"] == {"stored": "float32"}


def test_float16_loses_less_than_a_percent_of_the_rms(exported):
    effects = Bundle.load(exported["float16"]).sidecar.provenance["precision"]["effect"].values()
    assert max(effect["rms"] / effect["rms_float32"] for effect in effects) < 1.01


def test_the_card_says_how_weights_are_stored(exported):
    card = model_card(Bundle.load(exported["int8"]))
    assert "Weights are stored as int8" in card
    assert "rms with float32 weights" in card
    assert exported["int8"].with_suffix(".md").read_text(encoding="utf-8") == card
    assert "rms with float32 weights" not in model_card(Bundle.load(exported["float32"]))


def test_a_file_too_large_for_a_mail_says_what_would_shrink_it(exported, run, monkeypatch):
    path = exported["float16"]
    network, settings = Bundle.load(exported["float32"]).network, run.settings()
    assert len(describe_size(path, network, "float16", settings)) == 1
    monkeypatch.setattr("anna_onnx.training.export.EMAIL", 1e6)
    _, warning = describe_size(path, network, "float16", settings)
    size = exported["int8"].stat().st_size / 1e6
    assert f"--precision int8: about {size:.1f} MB" in warning
    assert "fc1" in warning


def test_nothing_is_said_about_packages_that_the_exporter_could_use(run, tmp_path, capfd, caplog):
    export(run, tmp_path / "a.onnx", say=lambda text: None)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("trained", "calibrated"), [(0.6, 0.3), (1.0, 1.0)])
def test_errors_are_calibrated_on_half_as_many_imperfections_where_only_some_spectra_have_them(trained, calibrated):
    settings = config.loads(GRID_PARAMS, Path("params.toml"))
    augmentation = dataclasses.replace(settings.augmentation, imperfect=trained)
    found = calibrating(dataclasses.replace(settings, augmentation=augmentation))
    assert found.augmentation == dataclasses.replace(augmentation, imperfect=calibrated)


def test_a_run_from_a_grid_is_calibrated_on_fresh_stars_of_its_instrument(monkeypatch):
    monkeypatch.setattr("anna_onnx.training.calibration_set.N_CALIBRATION", 40)
    settings = config.loads(GRID_PARAMS, Path("params.toml"))
    stars, known_as = calibration_set(settings)
    assert (len(stars), known_as) == (80, "stars drawn from the grid")  # half of them to adjust sigma on
    augmentation = load_augmentation(settings, stars.grid, torch.device("cpu"))
    labels = tuple(Label(name, 0, 1) for name in stars.label_names)
    preparation = describe_preparation(settings, labels, stars, augmentation)
    assert preparation.resolution == 11000
    # The radial velocities of the stars, and the shifts of the augmentation on top.
    assert preparation.velocity_range == (-60, 55)


def test_errors_are_calibrated_on_the_spectra_that_were_split_off_and_on_no_others(tmp_path):
    for seed in (1, 2):
        simulate(None, tmp_path / f"{seed}.h5", 30, seed=seed)
    text = PARAMS.replace(
        'train = "train.h5"\nvalidation = "validation.h5"', 'train = ["1.h5", "2.h5"]\nvalidation_size = 16'
    )
    run = config.loads(text, tmp_path / "params.toml")
    held_out, known_as = calibration_set(run)
    assert known_as == "spectra split off from the training set"
    seen = prepare_task(run, torch.device("cpu")).source.take(torch.arange(60 - len(held_out))).flux
    validating = {row.tobytes() for row in held_out.flux}
    assert len(validating) == len(held_out) == len(held_out.labels) == len(held_out.aux["rv"]) >= 16
    assert validating.isdisjoint(row.tobytes() for row in seen.numpy())


def test_coverage_is_measured_at_export_by_thirds_stands_in_the_card_and_is_said_where_it_is_off(run, tmp_path):
    said: list[str] = []
    bundle = export(run, tmp_path / "a.onnx", say=said.append)
    found = Coverage.from_dict(bundle.sidecar.provenance["coverage"])
    assert found.groups == ("snr", *(label.name for label in bundle.sidecar.labels))
    assert (found.n, found.n_star) == (400, 100)
    assert found.overall == pytest.approx(np.broadcast_to(found.levels, found.overall.shape), abs=0.1)
    assert "## Coverage" in model_card(bundle)
    assert said[-1] == found.warning()  # one error for all stars, as here, never suits every third
