"""A page that infers in the browser: `export_page` puts a model into it.

The page is static, needs no server and loads nothing once it is open. Its
code is built from ``web/`` and ships in `anna_onnx.web`. A model comes into it
as JSON: what the sidecar says, with arrays as little-endian bytes in letters.
Every file that is not HTML or CSS is a script, so that the page also opens
from a disk or a mail, where browsers forbid pages to load anything else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import os
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.bundle import Bundle
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.files import EMAIL, write_text
from anna_onnx.sidecar import Sidecar

SINGLE_FILE = (".html", ".htm")
METRICS = ("bias", "robust_scatter", "rms", "coverage_68")
# The 91 printable ones that JSON and scripts hold as they are.
LETTERS = np.array([code for code in range(33, 127) if chr(code) not in '"<\\'], dtype=np.uint8)


def export_page(
    bundle: Bundle, target: str | os.PathLike[str], notes: str = "", say: Callable[[str], None] = print
) -> Path:
    """Write a page that infers with a model.

    Parameters
    ----------
    bundle : Bundle
    target : path-like
        A folder, made if need be; or a file name that ends in ``.html``, for
        everything in one file.
    notes : str
        Markdown, in place of the model's own: what people should know of it.
    say : callable
        Called with a line for a person to read.

    Returns
    -------
    Path
        The file to open.

    Raises
    ------
    ResultError
        If it cannot be written.
    """
    target = Path(target)
    parts = page_parts(bundle, notes)
    single = target.suffix.lower() in SINGLE_FILE
    folder, files = (target.parent, {target.name: _in_one(parts)}) if single else (target, _linked(parts))
    for name, text in files.items():
        write_text(folder / name, text)
    say(describe_size(target, sum(len(text.encode()) for text in files.values())))
    return target if single else target / "index.html"


def describe_size(target: Path, size: int) -> str:
    """Return what to say of the size of a page in bytes."""
    text = f"{target}: {size / 1e6:.1f} MB"
    if size <= EMAIL:
        return text
    return (
        f"{text}; more than {EMAIL / 1e6:.0f} MB may be too large for an e-mail: "
        "a model exported with --precision float16 or int8 makes it smaller"
    )


def page_parts(bundle: Bundle, notes: str = "") -> dict[str, str]:
    """Return the files of the page by name; ``index.html`` has a place left for the security policy."""
    built = resources.files("anna_onnx.web")
    parts = {name: (built / name).read_text(encoding="utf-8") for name in ("index.html", "style.css", "app.js")}
    parts["index.html"] = parts["index.html"].replace("{{name}}", html.escape(bundle.name))
    network = in_letters(gzip.compress(bundle.network, mtime=0))
    parts["model.js"] = _assign(model=model_json(bundle, notes), network=network)
    notices = (built / "notices.txt").read_text(encoding="utf-8")
    parts["engine.js"] = f"/*\n{notices}*/\n" + _assign(engine=in_letters((built / "engine.wasm.gz").read_bytes()))
    return parts


def model_json(bundle: Bundle, notes: str = "") -> dict[str, Any]:
    """Return what the page needs to know of a model, as JSON can hold it; ``web/src/model.ts`` reads it."""
    sidecar, novelty, test = bundle.sidecar, bundle.sidecar.novelty, bundle.sidecar.selftest
    return {
        "name": bundle.name,
        "sha256": sidecar.sha256,
        "labels": [
            {"name": label.name, "unit": label.unit, "low": label.low, "high": label.high} for label in sidecar.labels
        ],
        "grid": {"wavelength": _array(sidecar.grid.wavelength, "<f8"), "medium": sidecar.grid.medium},
        "preparation": sidecar.preparation.to_dict(),
        "calibration": _error_factors(sidecar),
        "novelty": None
        if novelty is None
        else {
            "mean": _array(novelty.mean, "<f8"),
            "components": _array(novelty.orthonormal, "<f4"),
            "noise": novelty.noise.tolist(),
            "threshold": novelty.threshold.tolist(),
        },
        "fit_limits": None
        if sidecar.fit_limits is None
        else {name: np.asarray(value).tolist() for name, value in vars(sidecar.fit_limits).items()},
        "hull": None
        if sidecar.hull is None
        else {"pairs": sidecar.hull.pairs.astype(int).tolist(), "filled": sidecar.hull.filled.astype(int).tolist()},
        "selftest": None if test is None else {"flux": _array(test.flux, "<f4"), "labels": _array(test.labels, "<f4")},
        "about": _about(sidecar, notes),
    }


def _about(sidecar: Sidecar, notes: str) -> dict[str, Any]:
    """Return what the page tells of a model's making; a file from a mail may hold anything there."""
    about = sidecar.provenance
    metrics = {label.name: _metrics(about, label.name) for label in sidecar.labels}
    return {
        "date": str(about.get("date", "")),
        "architecture": str(about.get("architecture", "")),
        "tested_on": str(about.get("calibrated_on", "validation set")),
        "metrics": {name: numbers for name, numbers in metrics.items() if numbers},
        "data": {
            str(name): {"file": str(_part(entry, "file")), "sha256": str(_part(entry, "sha256"))}
            for name, entry in _mapping(about, "data").items()
        },
        "versions": {str(name): str(version) for name, version in _mapping(about, "versions").items()},
        "notes": (notes or str(about.get("notes", ""))).strip(),
    }


def _metrics(about: Mapping[str, Any], label: str) -> dict[str, float]:
    """Return how well a label was inferred, nothing unless all of it is known."""
    entry = _mapping(about, "metrics").get(label)
    numbers = {name: _part(entry, name) for name in METRICS}
    known = all(isinstance(number, (int, float)) and np.isfinite(number) for number in numbers.values())
    return numbers if known else {}


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _part(entry: Any, name: str) -> Any:
    return entry.get(name, "") if isinstance(entry, Mapping) else ""


def _error_factors(sidecar: Sidecar) -> dict[str, Any]:
    """Return the factors that make 68 % errors of the network's sigma, by S/N bin and label."""
    n_label = len(sidecar.labels)
    if sidecar.calibration is None:
        return {"snr": [1.0], "factors": [[NormalDist().inv_cdf(0.5 + ONE_SIGMA / 2)] * n_label]}
    snr = sidecar.calibration.snr
    factors = sidecar.calibration.half_width(np.ones((snr.size, n_label)), snr, ONE_SIGMA)
    return {"snr": snr.tolist(), "factors": factors.tolist()}


def _linked(parts: Mapping[str, str]) -> dict[str, str]:
    """Return the files of the page for a folder."""
    # "file:" beside 'self', which some browsers do not apply to pages from a disk.
    policy = _policy(script="'self' file:", style="'self' file:")
    return {**parts, "index.html": parts["index.html"].replace("{{policy}}", policy)}


def _in_one(parts: Mapping[str, str]) -> str:
    """Return the page with everything inside."""
    page = parts["index.html"]
    scripts = {name: _inside_script(text) for name, text in parts.items() if name.endswith(".js")}
    policy = _policy(
        script=" ".join(_digest(text) for text in scripts.values()),
        style=_digest(parts["style.css"]),
    )
    page = page.replace("{{policy}}", policy)
    page = page.replace('<link rel="stylesheet" href="style.css">', f"<style>{parts['style.css']}</style>")
    for name, text in scripts.items():
        page = page.replace(f'<script defer src="{name}"></script>', f"<script>{text}</script>")
    return page


def _policy(script: str, style: str) -> str:
    """Return a content security policy under which the page cannot load or send anything."""
    return (
        f"default-src 'none'; script-src {script} 'wasm-unsafe-eval'; style-src {style}; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


def _inside_script(text: str) -> str:
    """Return a script without what would end it, or begin a comment, inside HTML."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _assign(**values: Any) -> str:
    """Return a script that gives the page some values."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return f"globalThis.annaFiles = Object.assign(globalThis.annaFiles ?? {{}}, {text});\n"


def _array(values: ArrayLike, kind: str) -> str:
    return in_letters(np.ascontiguousarray(values, dtype=kind).tobytes())


def in_letters(content: bytes) -> str:
    """Return bytes as text: 13 bits in two of `LETTERS`, of which base64 has 12; ``web/src/letters.ts`` reads it.

    The idea is that of basE91 (https://base91.sourceforge.net), without its groups of 14 bits. It is what keeps a
    page with a released model small enough for an e-mail. The first letter tells how many bytes at the end only
    fill up a group of 13.
    """
    filling = -len(content) % 13
    bits = np.unpackbits(np.frombuffer(content + bytes(filling), dtype=np.uint8)).reshape(-1, 13)
    numbers = np.packbits(np.pad(bits, ((0, 0), (3, 0))), axis=1).view(">u2").ravel()
    digits = np.column_stack(np.divmod(numbers, LETTERS.size)).ravel()
    return bytes(LETTERS[np.insert(digits, 0, filling)]).decode("ascii")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
