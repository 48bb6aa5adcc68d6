"""Models, files and a browser for the tests of the page."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anna_onnx.bundle import Bundle, write
from anna_onnx.calibration import Calibration
from anna_onnx.continuum import Normalization
from anna_onnx.fit import COLUMNS, FitLimits
from anna_onnx.hull import Hull
from anna_onnx.labels import Label
from anna_onnx.novelty import Novelty
from anna_onnx.preparation import Preparation
from anna_onnx.resampling import Grid
from anna_onnx.session import Session
from anna_onnx.sidecar import SelfTest, Sidecar

WEB = Path(__file__).parents[2] / "web"
LABELS = (Label("teff", 4000, 7000), Label("logg", 2.7, 4.8), Label("feh", -0.5, 0.2))
# velocity, pixel_noise, noise, misfit, lines, widening, widening_error: about as strange as may be
USUAL_FIT = (0.0, 0.005, 0.006, 0.02, 0.05, 0.2, 0.3)
SCATTER_OF_FIT = (15.0, 0.001, 0.001, 0.012, 0.01, 0.6, 0.05)
FIT_LIMITS = FitLimits(
    noise=np.array([0.001, 0.01, 0.1]),
    outside_threshold=np.array([1.3, 1.2, 1.1]),
    misfit_threshold=np.array([0.5, 1.0, 2.0]),
    blur_threshold=np.array([3.0, 2.0, 1.0]),
    dilution=7.9,
    line_error=0.05,
    outside_error=0.1,
    blur_error=0.4,
)

PREPARATIONS = {
    # What most spectra of the tests need nothing for.
    "plain": Preparation(
        Grid(np.linspace(6625, 6825, 1001), "air"), velocity_range=(-100, 100), snr_range=(175, 250), frame="rest"
    ),
    # Wider pixels in vacuum, at rest, of a lower resolving power, and with the continuum fitted.
    "demanding": Preparation(
        Grid(np.arange(6640, 6800, 0.45), "vacuum"),
        resolution=9000,
        frame="rest",
        normalize=Normalization("polynomial", 2, ignore=((6676.0, 6681.0),)),
        min_coverage=0.95,
        snr_range=(50, 100),
        unseen=((0, 1), (100, 119)),
    ),
}


def make_network(n_pixel: int, seed: int = 1) -> bytes:
    """Return a small network with random weights: labels in their units, sigma and fit that depend on the flux."""
    onnx = pytest.importorskip("onnx", reason="onnx makes the networks of these tests")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    random = np.random.default_rng(seed)
    span = np.array([label.span for label in LABELS])
    low = np.array([label.low for label in LABELS])
    weights = {
        "one": np.float32(1),
        "inward": random.normal(0, 1.5 / np.sqrt(n_pixel), (n_pixel, 16)).astype(np.float32) * 10,
        "outward": (random.normal(0, 0.3, (16, 3)) * span).astype(np.float32),
        "middle": (low + 0.5 * span).astype(np.float32),
        "spread": (random.normal(0, 0.1, (16, 3))).astype(np.float32),
        "width": (0.05 * span).astype(np.float32),
        "scatter": (random.normal(0, 0.25, (16, len(COLUMNS))) * SCATTER_OF_FIT).astype(np.float32),
        "usual": np.array(USUAL_FIT, dtype=np.float32),
    }
    nodes = [
        helper.make_node("IsNaN", ["flux"], ["missing"]),
        helper.make_node("Where", ["missing", "one", "flux"], ["known"]),
        helper.make_node("Sub", ["known", "one"], ["lines"]),
        helper.make_node("MatMul", ["lines", "inward"], ["before"]),
        helper.make_node("Tanh", ["before"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "outward"], ["offset"]),
        helper.make_node("Add", ["offset", "middle"], ["labels"]),
        helper.make_node("MatMul", ["hidden", "spread"], ["log"]),
        helper.make_node("Exp", ["log"], ["relative"]),
        helper.make_node("Mul", ["relative", "width"], ["sigma"]),
        helper.make_node("MatMul", ["hidden", "scatter"], ["unusual"]),
        helper.make_node("Add", ["unusual", "usual"], ["fit"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("flux", kind, ["batch", n_pixel])],
        [
            helper.make_tensor_value_info(name, kind, ["batch", width])
            for name, width in (("labels", 3), ("sigma", 3), ("fit", len(COLUMNS)))
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def make_novelty(grid: Grid) -> Novelty:
    """Return a subspace of smooth spectra; about as much as a solar spectrum lies outside of it."""
    x = np.linspace(0, 1, grid.n_pixel)
    waves = np.stack([np.cos(np.pi * k * x) for k in range(40)])
    return Novelty(
        mean=np.full(grid.n_pixel, 0.98),
        components=np.linalg.qr(waves.T)[0].T.astype(np.float32),
        noise=np.array([0.001, 0.01, 0.1]),
        threshold=np.array([0.02, 0.035, 0.1]),
        false_alarm=0.01,
    )


def make_hull() -> Hull:
    """Return a hull without cool dwarfs."""
    filled = np.ones((1, 10, 10))
    filled[0, :5, 6:] = 0
    return Hull(np.array([[0.0, 1.0]]), filled)


def make_model(folder: Path, name: str) -> Path:
    """Write a model with one of the preparations, and return its file."""
    preparation = PREPARATIONS[name]
    grid = preparation.grid
    random = np.random.default_rng(2)
    network = make_network(grid.n_pixel)
    levels = np.array([0.5, 0.6827, 0.95])
    factors = np.sort(random.uniform(0.5, 3, (4, len(LABELS), 3)), axis=-1)
    sidecar = Sidecar(
        LABELS,
        preparation,
        calibration=Calibration(levels, np.array([20.0, 60.0, 150.0, 300.0]), factors, 1000),
        novelty=make_novelty(grid),
        fit_limits=FIT_LIMITS if name == "plain" else None,
        hull=make_hull() if name == "plain" else None,
        provenance={"name": name, "date": "2026-01-01", "versions": {"anna-onnx": "0"}},
    )
    flux = random.normal(0.97, 0.02, (4, grid.n_pixel)).astype(np.float32)
    untested = write(folder / f"{name}.onnx", network, sidecar)
    labels, sigma, *_ = Session(untested).run(flux)
    test = SelfTest(flux, labels.astype(np.float32), sigma.astype(np.float32))
    write(folder / f"{name}.onnx", network, Sidecar(**{**vars(sidecar), "selftest": test}))
    return folder / f"{name}.onnx"


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """Files of models by name, in a folder of their own."""
    folder = tmp_path_factory.mktemp("models")
    return {name: make_model(folder, name) for name in PREPARATIONS}


@pytest.fixture(scope="session")
def bundle(models) -> Bundle:
    """The plain model."""
    return Bundle.load(models["plain"])


@pytest.fixture(scope="session")
def node() -> str:
    """The path of node, with the page's packages installed."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on this machine")
    if not (WEB / "node_modules" / "esbuild").is_dir():
        pytest.skip("the page's packages are not installed (npm ci in web/)")
    return found


@pytest.fixture(scope="session")
def browse(node, chromium) -> Iterator[Callable[..., dict[str, Any]]]:
    """Open a page in headless Chromium, give it files, and return what came of it; see web/test/browser.mjs."""
    browser = subprocess.Popen(
        [node, str(WEB / "test" / "browser.mjs")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        env={**os.environ, "CHROMIUM": chromium},
    )  # fmt: skip

    def run(page: Path | str, files: Sequence[Path] = (), **options: Any) -> dict[str, Any]:
        print(
            json.dumps({"page": str(page), "files": list(map(str, files)), **options}), file=browser.stdin, flush=True
        )
        found = json.loads(browser.stdout.readline())
        assert "failed" not in found, found["failed"]
        assert found["problems"] == []
        return {**found, "rows": list(csv.DictReader(io.StringIO(found["csv"])))}

    yield run
    browser.stdin.close()
    browser.wait(timeout=60)


@pytest.fixture(scope="session")
def lite() -> Callable[..., list[dict[str, str]]]:
    """Run ``anna-lite infer`` and return the rows of its table."""

    def run(model: Path, files: Sequence[Path], *options: str) -> list[dict[str, str]]:
        program = Path(sys.executable).with_name("anna-lite")
        done = subprocess.run(
            [str(program), "infer", str(model), *map(str, files), *options],
            capture_output=True, text=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        return list(csv.DictReader(io.StringIO(done.stdout)))

    return run
