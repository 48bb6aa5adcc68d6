"""The page reads files as Python does, or says that it cannot; and the TypeScript passes its own tests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anna_onnx.errors import AnnaError
from anna_onnx.medium import C_KMS, air_to_vacuum
from anna_onnx.readers import columns, facts, read_spectra
from anna_onnx.readers.units import _ANGSTROM

WEB = Path(__file__).parents[2] / "web"


@pytest.fixture(scope="module")
def built(node) -> Path:
    """The folder with the tests of the page, built."""
    subprocess.run([node, "build.mjs", "--tests"], cwd=WEB, check=True, capture_output=True)
    return WEB / "build"


@pytest.fixture(scope="module")
def read_as_page(node, built) -> Callable[[list[Path]], dict[str, Any]]:
    """Read files as the page does: a list of summaries, or a message, by file name."""

    def read(files: list[Path]) -> dict[str, Any]:
        command = [node, str(built / "read.mjs"), *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


def read_as_python(path: Path) -> Any:
    """Return what web/test/read.ts returns."""
    try:
        spectra = read_spectra(path)
    except AnnaError as error:
        return str(error)
    return [summary(spectrum) for spectrum in spectra]


def summary(spectrum) -> dict[str, Any]:
    good = np.flatnonzero(~spectrum.bad)
    weight = 1 + good % 7
    n = spectrum.n_pixel
    return {
        "medium": spectrum.medium,
        "frame": spectrum.frame,
        "id": spectrum.id,
        "notes": list(spectrum.notes),
        "resolution": spectrum.resolution,
        "radialVelocity": spectrum.radial_velocity,
        "row": spectrum.source.row,
        "hdu": spectrum.source.hdu,
        "n": n,
        "first": spectrum.wavelength[0],
        "middle": spectrum.wavelength[n // 2],
        "last": spectrum.wavelength[-1],
        "n_bad": n - good.size,
        "flux": (spectrum.flux[good] * weight).sum(),
        "sigma": None if spectrum.sigma is None else (spectrum.sigma[good] * weight).sum(),
    }


def assert_same(page: list[dict[str, Any]], python: list[dict[str, Any]], file: str) -> None:
    assert isinstance(page, list), f"{file}: {page}"
    assert isinstance(python, list), f"{file}: {python}"
    assert len(page) == len(python), file
    for ours, theirs in zip(page, python, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if isinstance(value, float):
                assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-30), f"{file}: {name}"
            else:
                assert ours[name] == value, f"{file}: {name}"


def test_the_typescript_passes_its_own_tests(node, built):
    tests = sorted(map(str, built.glob("*.test.mjs")))
    done = subprocess.run([node, "--test", *tests], capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout


def test_real_spectra_are_read_as_python_reads_them_or_refused(read_as_page, shared):
    files = sorted(path for path in (shared / "fits").iterdir() if path.name != "MANIFEST.json")
    found = read_as_page(files)
    read = [path for path in files if isinstance(found[str(path)], list)]
    for path in read:
        assert_same(found[str(path)], read_as_python(path), path.name)
    refused = [found[str(path)] for path in files if path not in read]
    assert all("anna-lite infer reads more" in message for message in refused), refused
    assert len(read) >= 12, [path.name for path in read]


MULTISPEC = {
    "linear": "1 1 0 5000. 0.5 60 0. 10. 20.",
    "log": "1 1 1 3.7 1e-5 60 0.001 10. 20.",
    "padded": "1 1 0 5000. 0.5 40 0. 10. 20.",
    "chebyshev": "1 1 2 5000. 0.5 60 0. 10. 20. 1. 0. 1 4 1. 60. 5015. 15. 0.5 -0.1",
    "legendre": "1 1 2 5000. 0.5 60 0. 10. 20. 1. 2.5 2 4 1. 60. 5015. 15. 0.5 -0.1",
    "cubic spline": "1 1 2 5000. 0.5 60 0. 10. 20. 1. 0. 3 2 1. 60. 4990. 5000. 5012. 5020. 5033.",
    "linear spline": "1 1 2 5000. 0.5 60 0. 10. 20. 1. 0. 4 2 1. 60. 5000. 5014. 5031.",
    "pixel array": "1 1 2 5000. 0.5 60 0. 10. 20. 1. 0. 5 4 5000. 5000.5 5001.2 5001.9",
    "sampled array": "1 1 2 5000. 0.5 60 0. 10. 20. 1. 0. 6 3 0. 1. 5000. 30. 5016. 60. 5030.",
    "two functions": "1 1 2 0. 0. 60 0. 1. 1. 1. 0. 1 2 1. 60. 5015. 15. 3. 1. 2 2 1. 60. 5016. 15.",
    "no solution": "1 1 -1 5000. 0.5 60 0. 10. 20.",
    "no function": "1 1 2 5000. 0.5 60 0. 10. 20. 1. 0. 9 4 1. 60. 5015. 15. 0.5 -0.1",
    "broken": "1 1 zero",
}


def multispec_file(path: Path, dispersion: str, **cards: Any) -> Path:
    """Write a multispec image of one aperture, its dispersion over as many WAT cards as it takes."""
    from astropy.io import fits

    text = f'wtype=multispec spec1 = "{dispersion}"'
    pieces = [text[i : i + 68] for i in range(0, len(text), 68)]
    header = fits.Header([("CTYPE1", "MULTISPE"), ("CTYPE2", "MULTISPE"), ("WAT0_001", "system=multispec")])
    header["WAT1_001"] = "wtype=multispec label=Wavelength units=angstroms"
    for i, piece in enumerate(pieces, 1):
        header[f"WAT2_{i:03d}"] = piece
    header.update(cards)
    flux = 1 + 0.1 * np.sin(np.arange(60.0))
    fits.PrimaryHDU(flux.astype(np.float32)[None], header).writeto(path)
    return path


def test_every_dispersion_function_of_iraf_is_evaluated_as_python_does(read_as_page, tmp_path):
    files = [multispec_file(tmp_path / f"{name}.fits", text) for name, text in MULTISPEC.items()]
    files += [multispec_file(tmp_path / "trimmed.fits", MULTISPEC["chebyshev"], LTV1=-5.0, LTM1_1=0.5)]
    found = read_as_page(files)
    for path in files:
        expected = read_as_python(path)
        if isinstance(expected, str):
            assert found[str(path)].removeprefix(path.name) == expected.removeprefix(str(path))
        else:
            assert_same(found[str(path)], expected, path.name)


AXES: dict[str, dict[str, Any]] = {
    "angstrom": {"CRVAL1": 6000.0, "CDELT1": 0.1, "CUNIT1": "Angstrom"},
    "nm": {"CRVAL1": 600.0, "CDELT1": 0.01, "CUNIT1": "nm", "CTYPE1": "AWAV"},
    "vacuum": {"CRVAL1": 6e-7, "CDELT1": 1e-11, "CUNIT1": "m", "CTYPE1": "WAVE", "SPECSYS": "BARYCENT"},
    "guessed": {"CRVAL1": 6000.0, "CD1_1": 0.1},
    "reference in the middle": {"CRVAL1": 6000.0, "CDELT1": 0.1, "CRPIX1": 50.0, "OBJECT": "it''s"},
    "log10 by iraf": {"CRVAL1": 3.7, "CDELT1": 1e-5, "DC-FLAG": 1},
    "log10 by its size": {"CRVAL1": 3.7, "CDELT1": 1e-5},
    "natural log": {"CRVAL1": 8.7, "CDELT1": 1e-5, "CTYPE1": "WAVE-LOGLAM"},
    "paper III log": {"CRVAL1": 6000.0, "CDELT1": 0.1, "CTYPE1": "AWAV-LOG", "CUNIT1": "Angstrom"},
    "coefficients": {"COEFF0": 3.7, "COEFF1": 1e-5},
    "linear by iraf": {"CRVAL1": 6000.0, "CDELT1": 0.1, "DC-FLAG": 0, "WAT0_001": "system=equispec"},
    "in the type": {"CRVAL1": 6000.0, "CDELT1": 0.1, "CTYPE1": "LAMBDA (Angstrom)", "VRAD": -12.5},
    "a number for a name": {"CRVAL1": 6000.0, "CDELT1": 0.1, "OBJECT": 1234},
    "a star with a point": {"CRVAL1": 6000.0, "CDELT1": 0.1, "OBJECT": 12.0, "CRPIX1": 1},
    "HARPS": {
        "CRVAL1": 6000.0,
        "CDELT1": 0.01,
        "INSTRUME": "HARPS",
        "HIERARCH ESO DRS BERV": 3.2,
        "SPEC_RES": 115000.0,
    },
    "an amateur's": {"CRVAL1": 6000.0, "CDELT1": 0.1, "BSS_VHEL": 0, "SPE_RPOW": 9000, "OBJNAME": "omi And"},
    "corrected": {"CRVAL1": 6000.0, "CDELT1": 0.1, "BSS_VHEL": -12.3},
    "another program": {"CRVAL1": 6000.0, "CDELT1": 0.1, "INSTRUME": "XSHOOTER", "PROCSOFT": "xshooter_reduce"},
    "the pipeline": {"CRVAL1": 6000.0, "CDELT1": 0.1, "INSTRUME": "XSHOOTER", "PROCSOFT": "xsh/2.6.0"},
    "a resolving power by name": {"CRVAL1": 6000.0, "CDELT1": 0.01, "INSTRUME": "HARPN"},
    "and by mode": {
        "CRVAL1": 6000.0,
        "CDELT1": 0.01,
        "INSTRUME": "ESPRESSO",
        "HIERARCH ESO INS MODE": "SINGLEUHR",
    },
    "but for large pixels": {"CRVAL1": 6000.0, "CDELT1": 0.2, "INSTRUME": "HARPN"},
    "descending": {"CRVAL1": 6000.0, "CDELT1": -0.1, "CUNIT1": "Angstrom"},
    "remark": {"CRVAL1": (6000.0, "[Angstrom] vacuum wavelength"), "CDELT1": 0.1, "COMMENT": "wavelength in air"},
    "prose": {"CRVAL1": 6000.0, "CDELT1": 0.1, "HISTORY": "wavelengths: air to vacuum done", "CUNIT1": "Angstrom"},
    "denied": {"CRVAL1": (6000.0, "not corrected to vacuum"), "CDELT1": 0.1, "COMMENT": "wavelength at airmass 1.2"},
    "another clause": {
        "CRVAL1": (6000.0, "in air, not corrected"),
        "CDELT1": 0.1,
        "CTYPE1": "WAVE",
        "INSTRUME": "UVES",
    },
    "left open": {"CRVAL1": 6000.0, "CDELT1": 0.1, "INSTRUME": "UVES", "HISTORY": "wavelengths not vacuum"},
    "left open by IRAF": {"CRVAL1": 6000.0, "CDELT1": 0.1, "WAT0_001": "", "HISTORY": "wavelengths not in vac"},
    "air of the sky": {"CRVAL1": (6000.0, "observed in air/ through air-pressure 1"), "CDELT1": 0.1},
    "in the unit": {"CRVAL1": 6000.0, "CDELT1": 0.1, "CUNIT1": ("Angstrom (vac)", "a unit / in air")},
    "a slash in quotes": {"CRVAL1": 6000.0, "CDELT1": 0.1, "CTYPE1": ("lambda/air''s", "in vacuum / really")},
    "PypeIt": {"CRVAL1": 6000.0, "CDELT1": 0.1, "PYP_SPEC": "keck_hires"},
    "a unit at the end": {"CRVAL1": 6000.0, "CDELT1": 0.1, "VRAD": (-12500.0, "of the star [m/s]")},
    "units of another kind": {"CRVAL1": 6000.0, "CDELT1": 0.1, "RV": (12.0, "[pix]"), "SPEC_RES": (5e4, "[nm] FWHM")},
    "units at the end": {"CRVAL1": 6000.0, "CDELT1": 0.1, "RV": (12.0, "at [pix]"), "SPEC_RES": (27.0, "of [km/s]")},
    "no units": {"CRVAL1": 6000.0, "CDELT1": 0.1, "RV": (12.0, "[star]"), "SPEC_RES": (4e4, "[lambda/delta_lambda]")},
    "units": {"CRVAL1": 6000.0, "CDELT1": 0.1, "RV": (12.0, "[km s**-1] at"), "SPEC_RES": (50000, "[1] power")},
    "CD1_1 beside CDELT1": {"CRVAL1": 6000.0, "CDELT1": 0.2, "CD1_1": 0.1, "CRPIX1": 1.0},
    "CD1_1 never set": {"CRVAL1": 6000.0, "CDELT1": 0.2, "CD1_1": 1.0, "CRPIX1": 1.0},
    "CD1_1 of an image": {"CRVAL1": 6000.0, "CDELT1": 0.2, "CD1_1": -7.7e-5, "CD2_2": 7.7e-5, "CRPIX1": 1.0},
    "scaled": {"CRVAL1": 6000.0, "CDELT1": 0.1, "BSCALE": 2.0, "BZERO": 1.0},
    "velocity": {"CRVAL1": 0.0, "CDELT1": 0.1, "CTYPE1": "VELO-LSR"},
    "frequency": {"CRVAL1": 6000.0, "CDELT1": 0.1, "CUNIT1": "Hz"},
    "pixels": {"CRVAL1": 1.0, "CDELT1": 1.0},
    "nothing": {},
    "grism": {"CRVAL1": 6000.0, "CDELT1": 0.1, "CTYPE1": "WAVE-GRI"},
    "far ultraviolet or infrared": {"CRVAL1": 1500.0, "CDELT1": 0.1},
}


def header_of(cards: dict[str, Any]) -> Any:
    """Return a header; a pair is a value with its comment."""
    from astropy.io import fits

    return fits.Header([(key, *value) if isinstance(value, tuple) else (key, value) for key, value in cards.items()])


def test_every_dialect_of_the_keyword_axis_is_read_as_python_does(read_as_page, tmp_path):
    from astropy.io import fits

    files = []
    for name, cards in AXES.items():
        path = tmp_path / f"{name}.fits"
        fits.PrimaryHDU((1 + 0.1 * np.sin(np.arange(100.0))).astype(np.float32), header_of(cards)).writeto(path)
        files.append(path)
    found = read_as_page(files)
    for path in files:
        expected = read_as_python(path)
        if isinstance(expected, str):
            shown = expected.removeprefix(str(path)).replace("; say it with wave_unit", "")
            assert found[str(path)].removeprefix(path.name) == shown
        else:
            assert_same(found[str(path)], expected, path.name)


def test_names_and_units_of_columns_mean_the_same_in_the_page(read_as_page, tmp_path):
    """One text file for every name that Python knows."""
    wavelength = np.linspace(6000, 6010, 30)
    flux = 1 + 0.1 * np.sin(wavelength)
    errors = (*columns._SIGMA, *columns._IVAR, *columns._VARIANCE)
    headers = {
        **{f"w{i}": f"{name},flux" for i, name in enumerate(columns._WAVELENGTH)},
        **{f"f{i}": f"wave,{name}" for i, name in enumerate(columns._FLUX)},
        **{f"e{i}": f"wave,flux,{name}" for i, name in enumerate(errors)},
        **{f"m{i}": f"wave,flux,err,{name}" for i, name in enumerate(columns._MASK)},
        **{f"u{i}": f"wave ({unit}),flux" for i, unit in enumerate(sorted(_ANGSTROM))},
        **{f"i{i}": f"# instrument {name}\nwave,flux" for i, name in enumerate(facts._PIPELINES)},
    }
    files = []
    for name, header in headers.items():
        path = tmp_path / f"{name}.csv"
        n_column = header.splitlines()[-1].count(",") + 1
        table = np.c_[wavelength, flux, np.full(30, 0.02), np.arange(30) % 9 == 0][:, :n_column]
        np.savetxt(path, table, delimiter=",", header=header, comments="", encoding="utf-8")
        files.append(path)
    found = read_as_page(files)
    for path in files:
        expected = read_as_python(path)
        shown = f"{path.name}: {headers[path.stem]}"
        if isinstance(expected, str):
            assert isinstance(found[str(path)], str), shown
        else:
            assert_same(found[str(path)], expected, shown)


MULTIPLETS = [(8498.02, 8542.09, 8662.14), (5172.68, 5183.60), (5889.95, 5895.92), (4340.46, 4861.32, 5172.68, 5183.60)]


def test_a_medium_is_judged_as_python_does(read_as_page, tmp_path):
    """Stars of several velocities in either medium, with the lines of one or two multiplets, and the grid of SDSS."""
    random = np.random.default_rng(7)
    spectra = []
    for i in range(40):
        lines = np.array(MULTIPLETS[i % 4])
        centers = (lines if i % 3 else air_to_vacuum(lines)) * (1 + random.uniform(-40, 40) / C_KMS)
        wavelength = np.arange(lines[0] - 10, lines[-1] + 10, 0.2)
        offset = (wavelength[:, None] - centers) / random.uniform(0.2, 1.2)
        flux = 1 - random.uniform(0.2, 0.9) * np.exp(-0.5 * offset**2).sum(axis=1)
        spectra.append((wavelength, flux + random.normal(0, random.choice([0.01, 0.1]), wavelength.size)))
    spectra += [(10 ** (first + 1e-4 * np.arange(2500)), np.ones(2500)) for first in (3.58, 3.58003)]
    files = [tmp_path / f"{i}.txt" for i in range(len(spectra))]
    for path, arrays in zip(files, spectra, strict=True):
        np.savetxt(path, np.transpose(arrays), fmt="%.3f")
    found = read_as_page(files)
    for path in files:
        assert_same(found[str(path)], read_as_python(path), path.name)
    assert {found[str(path)][0]["medium"] for path in files} == {"air", "vacuum", "unknown"}


TEXTS = {
    "blanks": "6000 1.0\n6000.1 0.9\n6000.2 0.95\n",
    "commas and missing": "6000,1.0\n6000.1,nan\n6000.2,0.95\n6000.3,--\n",
    "fortran and comments": "# object: Vega\n# vacuum waves\n6000 1 0.1\n6000.1 9.0e-1 .1\n# bad\n6000.2 0.95 0.1\n",
    "negative third": "6000 1.0 0.1\n6000.1 0.9 -0.1\n6000.2 0.95 0.1\n",
    "decimal commas": "lambda;flux\n6000,0;1,0\n6000,1;0,9\n6000,2;0,95\n",
    "decimal commas and tabs": "6000,0\t1,0\t1\n6000,1\t0,9\t2\n6000,2\t0,95\t3\n",
    "commas between integers": "6000,1\n6001,2\n6002,1\n",
    "windows": "wave;flux;err\r\nnm;;\r\n600.0;1.0;0.1\r\n600.1;0.9;0.1\r\n600.2;0.95;0.1\r\n",
    "unordered": "6000.2 1.0\n6000.0 0.9\n6000.1 0.95\n6000.1 0.96\n",
    "descending": "6000.2 1.0\n6000.1 0.9\n6000.0 0.95\n",
    "log": "loglam flux ivar\n3.7782 1.0 4.0\n3.7783 0.9 4.0\n3.7784 0.95 0.0\n",
    "velocity": "velocity flux\n100 1.0\n101 0.9\n102 0.95\n",
    "counts": "1 1.0\n2 0.9\n3 0.95\n",
    "one column": "1.0\n0.9\n0.95\n",
    "prose": "Dear colleague,\nhere they are.\n",
    "ragged": "6000 1.0\n6000.1 0.9\n6000.2\n6000.3 1.0\n",
    "latin": "# étoile: α\n6000 1.0\n6000.1 0.9\n6000.2 0.95\n",
    "zeros": "6000 0\n6000.1 0.9\n6000.2 0\n6000.3 1.0\n6000.4 0\n",
    "no error": "6000 1 0\n6000.1 1 0\n6000.2 1 0\n",
    "huge error": "6000 1 0.1\n6000.1 1 1e10\n6000.2 1 0.1\n",
    "huge errors of huge fluxes": "6000 1e12 1e10\n6000.1 1e12 1e13\n6000.2 1.1e12 1e10\n",
    "equal wavelengths": "wave flux\n6000 1.0\n6000 0.9\n6000 0.95\n",
    "unnamed flux": "wave,star1,star2\n6000,1.0,0.1\n6000.1,0.9,0.1\n6000.2,0.95,0.1\n",
    "unnamed flux and error": "lambda_obs,obs,err\n6000,1.0,0.1\n6000.1,0.9,0.1\n6000.2,0.95,0.1\n",
    "error before the flux": "# wavelength error obs\n6000 0.1 1.0\n6000.1 0.1 0.9\n6000.2 0.1 0.95\n",
    "only the ratio": "wavelength,S/N\n6000,50\n6000.1,51\n6000.2,52\n",
    "words beside": "wave,element,EP\n6000,Fe,1.0\n6000.1,Ti,0.9\n6000.2,Ca,0.95\n",
    "vacuum corrected": "# Wavelengths vacuum corrected\n6000 1.0 0.1\n6000.1 0.9 0.1\n6000.2 0.95 0.1\n",
    "names of stars": "star1,star2\n6000,1.0,0.1\n6000.1,0.9,0.1\n6000.2,0.95,0.1\n",
    "index": "index,wave_vac,value\n1,6000,1.0\n2,6000.1,0.9\n3,6000.2,0.95\n",
    "not telluric": "# object: A; wavelengths in air; no telluric correction\n6000 1.0\n6000.1 0.9\n6000.2 0.95\n",
    "two words": "# resampled wavelength\n6000 1.0\n6000.1 0.9\n6000.2 0.95\n",
    "as many words": "# the wavelength is\n6000 1.0 0.1\n6000.1 0.9 0.1\n6000.2 0.95 0.1\n",
    "five columns": "6000 1.0 0.1 5.5 0.3\n6000.1 0.9 0.1 5.5 0.3\n6000.2 0.95 0.1 5.5 0.3\n",
    "magnitudes": "wave,magnitude\n6000,11.0\n6000.1,10.9\n6000.2,10.95\n",
    "words": "name wave flux\na 6000 1.0\nb 6000.1 0.9\nc 6000.2 0.95\n",
    "stars below one another": "star,wave,flux\nA,6000,1\nA,6000.1,2\nB 2,6000,3\nA,6000.2,4\nB 2,6000.1,5\n",
    "orders of stars": "id wave flux order\n" + "".join(f"{i % 2} {6000 + i} 1 {i // 6}\n" for i in range(12)),
    "numbered pixels": "id wave flux\n1 6000 1\n2 6001 1\n3 6002 1\n4 6003 1\n",
    "words without names": "a,6000,1.0\nb,6000.1,0.9\nc,6000.2,0.95\n",
    "mask of words": "wave;flux;quality\n6000;1.0;good\n6000.1;0.9;bad\n6000.2;0.95;good\n",
    "flux of words": "wave,flux,value\n6000,good,1.0\n6000.1,good,0.9\n6000.2,good,0.95\n",
    "short names": "x,w,flux,y\n6000,1,0.5,1.0\n6000.1,2,0.5,0.9\n6000.2,3,0.5,0.95\n",
    "later name": "wave_rest,wave,flux,y\n6000,6001,0.5,1.0\n6000.1,6002,0.5,0.9\n6000.2,6003,0.5,0.95\n",
    "a line": "6000 1.0\nand words\n6000.1 0.9\nand more\n",
    "pipe": "|wave|flux|\n|6000|1.0|\n|6000.1|0.9|\n|6000.2|0.95|\n",
    "stars on top": "*** Lines\n6000 1.0\n6000.1 0.9\n6000.2 0.95\n",
    "one star": "obj wave flux\nVega 6000 1.0\nVega 6000.1 0.9\nVega 6000.2 0.95\n",
    "flux of a hertz": "".join(f"{w} {1 + w / 1e5} {1e-8 * w**2 * (1 + w / 1e5)}\n" for w in range(5000, 8000, 50)),
    "esprit": "***Reduced spectrum of 'HD 3'\n 3 2\n600.0 1.0 0.1\n600.1 0.9 0.1\n600.2 0.95 0.1\n",
}


def test_text_is_read_as_python_does(read_as_page, tmp_path):
    files = []
    for name, text in TEXTS.items():
        path = tmp_path / f"{name}.txt"
        path.write_bytes(text.encode("utf-8"))
        files.append(path)
    found = read_as_page(files)
    for path in files:
        expected = read_as_python(path)
        if isinstance(expected, str):
            assert isinstance(found[str(path)], str), f"{path.name}: {expected}"
        else:
            assert_same(found[str(path)], expected, path.name)


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory) -> list[bytes]:
    """The contents of small files of every kind."""
    from astropy.io import fits

    folder = tmp_path_factory.mktemp("sound")
    contents = [multispec_file(folder / f"{n}.fits", text).read_bytes() for n, text in MULTISPEC.items()]
    for cards in AXES.values():
        fits.PrimaryHDU(np.ones(50, np.float32), header_of(cards)).writeto(folder / "axis.fits", overwrite=True)
        contents.append((folder / "axis.fits").read_bytes())
    return contents + [(text * 4).encode() for text in TEXTS.values()]


def test_damaged_files_are_read_or_refused_as_python_does(read_as_page, sound_files, tmp_path):
    random = np.random.default_rng(11)
    letters = np.frombuffer(b"0123456789.-+eEDT '/=,;|#abcXYZ", np.uint8)
    files = []
    for i in range(200):
        content = np.frombuffer(sound_files[random.integers(len(sound_files))], np.uint8).copy()
        places = random.integers(0, min(content.size, 1600), random.integers(1, 4))
        content[places] = random.choice(letters, places.size)
        path = tmp_path / f"{i}.dat"
        path.write_bytes(content.tobytes())
        files.append(path)
    found = read_as_page(files)
    for path in files:
        expected = read_as_python(path)
        if isinstance(expected, str):
            assert isinstance(found[str(path)], str), f"{expected}, but the page reads it"
        else:
            assert_same(found[str(path)], expected, path.name)


def test_files_of_other_kinds_are_refused_with_a_message(read_as_page, tmp_path):
    from astropy.io import fits
    from astropy.table import Table

    table = tmp_path / "table.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(Table({"wave": [1.0], "flux": [1.0]}))]).writeto(table)
    several = tmp_path / "several.fits"
    fits.HDUList([fits.PrimaryHDU(np.ones(9)), fits.ImageHDU(np.ones(9))]).writeto(several)
    cut = tmp_path / "cut.fits"
    cut.write_bytes(table.read_bytes()[:100])
    votable = tmp_path / "table.vot"
    votable.write_text('<?xml version="1.0"?><VOTABLE/>')
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    image = tmp_path / "image.fits"
    fits.PrimaryHDU(np.ones((40, 50))).writeto(image)
    files = [table, several, cut, votable, empty, image]
    for path, message in read_as_page(files).items():
        assert isinstance(message, str), path
        assert message.startswith(Path(path).name), message
