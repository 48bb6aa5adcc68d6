"""Any bytes must end in a bundle that runs or in a BundleError, within 2 s and 500 MB.

Coverage-guided, for as long as wanted::

    pip install atheris
    python -m tests.fuzz.fuzz_bundle --seeds corpus
    python -m tests.fuzz.fuzz_bundle corpus -max_total_time=3600 -timeout=5 -rss_limit_mb=1024

Without atheris, ``python -m tests.fuzz.fuzz_bundle --random SECONDS`` mutates
the seeds at random, as the test in `test_fuzz_bundle` does for a moment.

An input is a byte that says what it is, and then a file as it would be e-mailed (0), a sidecar for
the right network (1), or a network whose sidecar has the right hash (2).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SLOW = 2.0  # seconds


def load_bytes(data: bytes, path: Path) -> None:
    """Load bytes as a bundle; only a `BundleError` may be raised."""
    from anna_onnx.bundle import Bundle
    from anna_onnx.card import model_card
    from anna_onnx.errors import BundleError
    from anna_onnx.graphcheck import check_network
    from anna_onnx.session import Session
    from anna_onnx.sidecar import Sidecar
    from tests import tiny

    kind, content = data[:1], data[1:]
    try:
        if kind == b"\1":
            bundle = Bundle("fuzzed", tiny.network(), Sidecar.from_bytes(content, "fuzzed"))
        elif kind == b"\2":
            check_network(content, "fuzzed")
            bundle = Bundle("fuzzed", content, tiny.sidecar())
        else:
            path.write_bytes(content)
            bundle = Bundle.load(path)
        model_card(bundle)
        labels = Session(bundle, threads=1).run(np.ones((2, bundle.sidecar.grid.n_pixel), np.float32)).labels
        assert labels.shape == (2, len(bundle.sidecar.labels))
    except BundleError:
        pass


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    from anna_onnx.bundle import write
    from tests import tiny

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write(path, tiny.network(), tiny.sidecar())
        return [b"\0" + path.read_bytes(), b"\1" + path.with_suffix(".h5").read_bytes(), b"\2" + tiny.network()]


def fuzz_at_random(seconds: float, seed: int = 0) -> int:
    """Mutate the seeds for some time; return how many inputs were tried."""
    from tests.fuzz.fuzz_readers import mutate

    generator = np.random.default_rng(seed)
    corpus = seeds()
    end = time.monotonic() + seconds
    tried = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        while time.monotonic() < end:
            original = corpus[tried % len(corpus)]
            data = original[:1] + mutate(original[1:], generator)
            started = time.thread_time()
            load_bytes(data, path)
            assert time.thread_time() - started < SLOW
            tried += 1
    return tried


def main() -> None:
    if "--random" in sys.argv:
        print(fuzz_at_random(float(sys.argv[-1]), seed=int(time.time())), "inputs")
        return
    if "--seeds" in sys.argv:
        folder = Path(sys.argv[-1])
        folder.mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(seeds()):
            (folder / f"seed_{i}").write_bytes(data)
        return
    import atheris

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        atheris.instrument_all()
        atheris.Setup(sys.argv, lambda data: load_bytes(data, path))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
