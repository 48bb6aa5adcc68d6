"""The last resort: specutils, where it is installed, for layouts that no reader here understands."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from anna_onnx.errors import NoWavelengthError, UnknownLayoutError
from anna_onnx.readers import read_spectra

from .files import image_bytes, write_hdus

# A package that takes files of three lines for its own, and what it makes of them.
STAND_IN = """
import numpy as np
from astropy import units as u
from astropy.io import fits, registry
from astropy.nddata import InverseVariance

__version__ = "0.0"


class Spectrum:
    def __init__(self, axis, flux, meta):
        self.spectral_axis, self.flux, self.meta = axis, flux * u.Jy, meta
        self.uncertainty = InverseVariance(np.full(len(flux), 4.0))
        self.mask = np.arange(len(flux)) == 2


class SpectrumList(list):
    @classmethod
    def read(cls, path, format):
        assert format == "three lines"
        with fits.open(path) as file:
            axis = u.Quantity(file[0].data[0].astype(float), file[0].header["UNIT"])
            flux = file[0].data[1].astype(float)
            return cls([Spectrum(axis, flux, {"header": {"OBJECT": "HD 1"}}), Spectrum(axis, flux, {"purpose": "sky"})])


registry.register_identifier("wcs1d-fits", SpectrumList, lambda *args, **kwargs: True)
registry.register_identifier("three lines", SpectrumList, lambda origin, path, *args, **kwargs: "three" in path)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Let a small package of our own stand in for specutils."""
    folder = tmp_path / "site" / "specutils"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(STAND_IN, encoding="utf-8")
    for name in [name for name in sys.modules if name.partition(".")[0] == "specutils"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder.parent))
    yield
    sys.modules.pop("specutils", None)


def write_three_lines(path, axis, unit):
    lines = np.array([axis, 1 + np.arange(len(axis)), np.zeros(len(axis))])
    path.write_bytes(image_bytes(lines, {"CRVAL1": 1.0, "CDELT1": 1.0, "UNIT": unit}))
    return path


@pytest.mark.parametrize(
    ("axis", "unit"),
    [([500.0, 501.0, 502.0, 503.0], "nm"), (299792.458 / np.array([500.0, 501.0, 502.0, 503.0]), "GHz")],
)
def test_a_layout_that_specutils_knows_is_read(stand_in, tmp_path, axis, unit):
    scale = 1.0 if unit == "nm" else 1e3
    (spectrum,) = read_spectra(write_three_lines(tmp_path / "three.fits", np.array(axis) * scale, unit), wave_unit="um")
    assert [note for note in spectrum.notes if "unit um" in note] == [
        "wavelength unit um left aside for that of the loader"
    ]
    np.testing.assert_allclose(spectrum.wavelength, [5000, 5010, 5020, 5030], rtol=1e-12)
    np.testing.assert_array_equal(spectrum.flux, [1, 2, 3, 4])
    np.testing.assert_array_equal(spectrum.sigma, [0.5] * 4)
    np.testing.assert_array_equal(spectrum.bad, [False, False, True, False])
    assert spectrum.id == "HD 1"
    assert spectrum.medium == "unknown"
    assert "read by specutils 0.0, loader three lines" in spectrum.notes


@pytest.mark.parametrize(
    ("axis", "unit"),
    [
        ([500.0, 501.0, 502.0], "km/s"),
        ([500.0, 501.0, 502.0], "pixel"),
        ([500.0, 501.0, 501.0], "nm"),
        ([500.0, np.nan, 502.0], "nm"),
    ],
)
def test_an_axis_without_wavelengths_in_order_is_refused(stand_in, tmp_path, axis, unit):
    with pytest.raises(UnknownLayoutError, match="an image of 3 x 3 that no layout explains"):
        read_spectra(write_three_lines(tmp_path / "three.fits", axis, unit))


def test_loaders_that_guess_are_not_asked(stand_in, tmp_path):
    with pytest.raises(UnknownLayoutError):
        read_spectra(write_three_lines(tmp_path / "other.fits", [500.0, 501.0, 502.0], "nm"))


def test_what_is_refused_for_a_reason_stays_refused(stand_in, tmp_path):
    path = tmp_path / "three.fits"
    path.write_bytes(image_bytes(np.ones((3, 4))))
    with pytest.raises(NoWavelengthError):
        read_spectra(path)


def test_the_choice_of_an_hdu_is_not_left_to_specutils(stand_in, tmp_path):
    with pytest.raises(UnknownLayoutError):
        read_spectra(write_three_lines(tmp_path / "three.fits", [500.0, 501.0, 502.0], "nm"), hdu=0)


def test_specutils_is_not_imported_for_what_is_read_without_it(tmp_path):
    path = tmp_path / "star.txt"
    np.savetxt(path, np.c_[np.linspace(5000, 5100, 50), np.ones(50)])
    code = f"import sys; from anna_onnx.readers import read_spectra; read_spectra({str(path)!r})"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'specutils' not in sys.modules"], check=True)


def test_a_spectrum_of_the_2df_survey_is_read_by_specutils_itself(tmp_path):
    """Lines of flux, variance and sky: https://www.2dfgrs.net, as the loader of specutils describes them."""
    pytest.importorskip("specutils", reason="specutils, the last resort, is not installed")
    lines = fits.ImageHDU(np.array([np.arange(1, 1025), np.full(1024, 0.04), np.ones(1024)], dtype="f4"))
    lines.header.update(IMAGE="SPECTRUM", CRVAL1=5800.0, CDELT1=4.3, CRPIX1=512.0)
    path = write_hdus(tmp_path / "galaxy.fits", lines, IMAGE="SKYCHART")
    (spectrum,) = read_spectra(path)
    assert (spectrum.wavelength[0], spectrum.wavelength[-1]) == pytest.approx((3602.7, 8001.6))
    np.testing.assert_array_equal(spectrum.flux, np.arange(1, 1025))
    np.testing.assert_allclose(spectrum.sigma, 0.2, rtol=1e-6)
    assert "loader 2dFGRS" in spectrum.notes[0]
