"""How fast ``anna convert`` turns a legacy .bin into .h5 and back, and how much memory it takes.

    python benchmarks/convert_binary.py [GIGABYTES] [FOLDER]

Writes a file of random spectra of 1001 pixels, converts it there and back in a
process of its own, and compares the two byte by byte.
"""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

N_PIXEL, N_LABEL = 1001, 5

CHILD = """
import json, resource, sys, time
from anna_onnx.legacy import binary_to_hdf5, hdf5_to_binary
times = [time.perf_counter()]
binary_to_hdf5(sys.argv[1], sys.argv[2]); times.append(time.perf_counter())
hdf5_to_binary(sys.argv[2], sys.argv[3]); times.append(time.perf_counter())
print(json.dumps([times[1] - times[0], times[2] - times[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def main() -> None:
    """Write, convert, compare, print."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        old, new, back = (Path(folder) / name for name in ("old.bin", "new.h5", "back.bin"))
        write(old, gigabytes)
        command = [sys.executable, "-c", CHILD, *map(str, (old, new, back))]
        there, again, memory = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        size = old.stat().st_size / 1e6
        print(f"{size / 1e3:.2f} GB: .bin -> .h5 {there:.1f} s ({size / there:.0f} MB/s), ", end="")
        print(f".h5 -> .bin {again:.1f} s ({size / again:.0f} MB/s), peak memory {memory:.0f} MB, ", end="")
        print("identical" if filecmp.cmp(old, back, shallow=False) else "DIFFERENT")


def write(path: Path, gigabytes: float) -> None:
    """Write random stars, a block at a time."""
    block = np.random.default_rng(1).random((1000, N_PIXEL + N_LABEL + 2))
    with path.open("wb") as file:
        np.concatenate([[N_PIXEL, N_LABEL], 6625 + 0.2 * np.arange(N_PIXEL)]).tofile(file)
        for _ in range(max(1, int(gigabytes * 1e9 / block.nbytes))):
            block.tofile(file)


if __name__ == "__main__":
    main()
