"""The only place that imports torch and onnx: training, testing and exporting a network."""

import os

# Read by OpenMP when torch is first imported. Its threads wait for each other by spinning, by default for
# milliseconds: on a machine that others use too that makes two threads many times slower than one. A short
# spin costs nothing measurable on an idle machine; no spin at all halves the speed there.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
