"""Training, testing and exporting networks: the only part that imports torch and onnx."""

import os
from importlib.util import find_spec

from anna_onnx.errors import MissingExtraError

if not all(map(find_spec, ("torch", "onnx", "onnxscript", "safetensors"))):
    raise MissingExtraError("Training, testing or exporting a network", "train")

# Read by OpenMP when torch is first imported. Its threads wait for each other by spinning, by default for
# milliseconds: on a machine that others use too that makes two threads many times slower than one. A short
# spin costs nothing measurable on an idle machine; no spin at all halves the speed there.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
