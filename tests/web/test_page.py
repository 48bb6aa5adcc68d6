"""The page as it is written, without a browser."""

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna_onnx.bundle import Bundle, released_models
from anna_onnx.errors import ResultError
from anna_onnx.page import describe_size, export_page, in_letters, model_json, page_parts

WEB = Path(__file__).parents[2] / "web"
BUILT = resources.files("anna_onnx.web")


def values_in(script: str) -> dict:
    """Return what a script of the page assigns."""
    return json.loads(re.fullmatch(r".*\?\? \{\}, (\{.*\})\);\n", script, re.S)[1])


def from_letters(text: str) -> bytes:
    """Return what letters stand for, slowly."""
    letters = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"<\\')
    filling, *digits = map(letters.index, text)
    bits = "".join(f"{91 * high + low:013b}" for high, low in zip(digits[::2], digits[1::2], strict=True))
    content = int(bits or "0", 2).to_bytes(len(bits) // 8, "big")
    return content[: len(content) - filling]


@given(st.binary(max_size=100))
def test_bytes_come_back_from_letters_that_a_script_can_hold(content):
    text = in_letters(content)
    assert from_letters(text) == content
    assert json.dumps(text) == f'"{text}"'
    assert "<" not in text


def test_the_committed_build_belongs_to_the_sources():
    if not (WEB / "src").is_dir():
        pytest.skip("the sources of the page are not here")
    files = [path.relative_to(WEB).as_posix() for path in (WEB / "src").rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for name in sorted([*files, "build.mjs", "package-lock.json"]):
        text = (WEB / name).read_text(encoding="utf-8")  # line ends of any system become \n
        digest.update(f"{name}\0{text}\0".encode())
    committed = (BUILT / "sources.sha256").read_text().strip()
    assert committed == digest.hexdigest(), "web/ has changed: npm run build there, and commit anna_onnx/web"


def test_what_ships_is_small_enough_for_the_wheel():
    sizes = {item.name: len(item.read_bytes()) for item in BUILT.iterdir() if item.is_file()}
    assert sum(sizes.values()) < 5e6, sizes


def test_the_engine_is_webassembly():
    assert gzip.decompress((BUILT / "engine.wasm.gz").read_bytes())[:4] == b"\0asm"


def test_a_folder_holds_the_page_and_its_scripts(bundle, tmp_path):
    page = export_page(bundle, tmp_path / "page")
    assert page == tmp_path / "page" / "index.html"
    linked = re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', page.read_text(encoding="utf-8"))
    assert sorted([*linked, "index.html"]) == sorted(path.name for path in page.parent.iterdir())


def test_a_html_file_holds_everything(bundle, tmp_path):
    page = export_page(bundle, tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<(?:script|link)[^>]*(?:src|href)="(?!data:)', text) == []
    for body in (re.findall(r"<script>(.*?)</script>", text, re.S), re.findall(r"<style>(.*?)</style>", text, re.S)):
        for part in body:
            assert f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" in text


@pytest.mark.parametrize("target", ["page", "page.html"])
def test_the_page_may_not_load_or_send_anything(bundle, tmp_path, target):
    text = export_page(bundle, tmp_path / target).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-inline" not in policy


def test_the_page_carries_the_network_unchanged(bundle):
    packed = values_in(page_parts(bundle)["model.js"])["network"]
    assert gzip.decompress(from_letters(packed)) == bytes(bundle.network)


def test_arrays_come_back_as_they_were(bundle):
    grid = values_in(page_parts(bundle)["model.js"])["model"]["grid"]
    wavelength = np.frombuffer(from_letters(grid["wavelength"]), "<f8")
    np.testing.assert_array_equal(wavelength, bundle.sidecar.grid.wavelength)


def test_the_factors_of_the_page_are_those_of_the_calibration(bundle):
    told, calibration = model_json(bundle)["calibration"], bundle.sidecar.calibration
    sigma = np.ones((1, len(bundle.sidecar.labels)))
    for snr, row in zip(told["snr"], told["factors"], strict=True):
        np.testing.assert_allclose(row, calibration.half_width(sigma, [snr])[0], rtol=1e-12)


def test_a_name_cannot_put_markup_into_the_page(bundle, tmp_path):
    page = export_page(replace(bundle, name="</script><b>x"), tmp_path / "page.html")
    assert "<b>x" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("junk", [None, 1, "x", [], {"teff": 1}, {"teff": {"bias": float("nan")}}, {"data": {"a": 1}}])
def test_whatever_a_mailed_model_tells_of_itself_makes_a_page(bundle, junk):
    told = dict.fromkeys(("metrics", "data", "versions", "date"), junk)
    strange = replace(bundle, sidecar=replace(bundle.sidecar, provenance=told))
    assert model_json(strange)["about"]["metrics"] == {}
    assert values_in(page_parts(strange)["model.js"])


def test_how_well_a_label_is_inferred_comes_into_the_page(bundle):
    numbers = {"bias": 1.0, "robust_scatter": 80.0, "rms": 90.0, "coverage_68": 0.68}
    known = replace(bundle.sidecar, provenance={"metrics": {"teff": {**numbers, "more": 1}}})
    assert model_json(replace(bundle, sidecar=known))["about"]["metrics"] == {"teff": numbers}


def test_what_people_should_know_of_a_model_comes_into_the_page(bundle):
    limited = replace(bundle, sidecar=replace(bundle.sidecar, provenance={"notes": "No giants.\n"}))
    assert model_json(limited)["about"]["notes"] == "No giants."
    assert model_json(limited, "No dwarfs.")["about"]["notes"] == "No dwarfs."
    assert model_json(bundle)["about"]["notes"] == ""


@pytest.mark.parametrize("target", ["page", "page.html"])
def test_the_size_of_a_page_is_told(bundle, tmp_path, target):
    said = []
    export_page(bundle, tmp_path / target, say=said.append)
    [line] = said
    assert re.fullmatch(rf"{re.escape(str(tmp_path / target))}: [45]\.\d MB", line)


def test_a_page_too_large_for_an_e_mail_is_told():
    assert describe_size(Path("page.html"), 9_900_000) == "page.html: 9.9 MB"
    assert "10.7 MB; more than 10 MB may be too large for an e-mail" in describe_size(Path("page.html"), 10_680_770)


@pytest.mark.parametrize("name", sorted(released_models()))
def test_a_page_with_a_released_model_fits_an_e_mail(name, tmp_path):
    page = export_page(Bundle.load(released_models()[name]), tmp_path / "page.html")
    assert page.stat().st_size < 10e6


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(bundle, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultError, match="cannot be written"):
        export_page(bundle, tmp_path / "file" / "page")


def test_the_command_writes_a_page_for_a_model(models, tmp_path):
    program = Path(sys.executable).with_name("anna")
    page, notes = tmp_path / "page.html", tmp_path / "notes.md"
    notes.write_text("No giants.")
    done = subprocess.run(
        [str(program), "export", "--web", str(page), "--model", str(models["plain"]), "--notes", str(notes)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    assert re.search(r"page\.html: [45]\.\d MB\n", done.stderr)
    assert page.stat().st_size > 4e6
    assert "No giants." in page.read_text(encoding="utf-8")


def test_writing_a_page_needs_no_torch():
    code = "import sys, anna_onnx.page; sys.exit(bool({'torch', 'onnx', 'scipy', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
