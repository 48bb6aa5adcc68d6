"""What Python users have becomes spectra: masks are bad pixels, units are converted, nonsense is refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import InverseVariance, NDDataArray, StdDevUncertainty, VarianceUncertainty
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked

from anna_onnx import Bundle, Spectrum
from anna_onnx.adoption import as_spectra
from anna_onnx.errors import AnnaError, SpectrumError
from anna_onnx.inference import InferOptions
from anna_onnx.preparation import PrepareOptions
from anna_onnx.readers import ReadOptions
from tests import tiny

WAVELENGTH = np.linspace(5000.0, 5004.0, 5)
FLUX = np.array([1.0, 0.9, 7.0, 0.8, 1.0])
SIGMA = np.full(5, 0.01)
COSMIC = np.array([False, False, True, False, False])

MASKS: dict[str, Callable[[np.ndarray], Any]] = {
    "masked array": lambda values: np.ma.array(values, mask=COSMIC),
    "column": lambda values: MaskedColumn(values, mask=COSMIC),
    "masked": lambda values: Masked(values, mask=COSMIC),
    "nddata": lambda values: NDDataArray(values, mask=COSMIC),
}


def adopt(*arrays: Any) -> Spectrum:
    (spectrum,) = as_spectra(arrays)
    return spectrum


@pytest.mark.parametrize("make", [Spectrum, adopt])
@pytest.mark.parametrize("masked", MASKS.values(), ids=MASKS)
def test_masked_pixels_are_bad(make: Callable[..., Spectrum], masked: Callable[[np.ndarray], Any]) -> None:
    np.testing.assert_array_equal(make(WAVELENGTH, masked(FLUX)).bad, COSMIC)
    np.testing.assert_array_equal(make(WAVELENGTH, FLUX, masked(SIGMA)).bad, COSMIC)
    np.testing.assert_array_equal(make(masked(WAVELENGTH), FLUX).bad, COSMIC)


@pytest.mark.parametrize("make", [Spectrum, adopt])
def test_a_masked_quantity_has_both_its_mask_and_its_unit(make: Callable[..., Spectrum]) -> None:
    table = QTable(
        {"wave": WAVELENGTH / 10 * u.nm, "flux": Masked(FLUX * u.Jy, mask=COSMIC), "error": SIGMA * 1e3 * u.mJy}
    )
    spectrum = make(table["wave"], table["flux"], table["error"])
    assert spectrum.wavelength == pytest.approx(WAVELENGTH)
    assert spectrum.sigma == pytest.approx(SIGMA)
    np.testing.assert_array_equal(spectrum.bad, COSMIC)
    assert type(spectrum.flux) is np.ndarray


def test_masks_follow_rows_and_the_order_of_wavelengths() -> None:
    rows = np.ma.array([FLUX, FLUX], mask=[np.arange(5) == 0, np.zeros(5, dtype=bool)])
    first, second = as_spectra((WAVELENGTH[::-1], rows))
    np.testing.assert_array_equal(first.bad, np.arange(5) == 4)
    assert not second.bad.any()
    listed, _ = as_spectra((WAVELENGTH[::-1], list(rows)))
    np.testing.assert_array_equal(listed.bad, first.bad)


@pytest.mark.parametrize("beneath", [np.nan, 0.0, 1e20])
def test_pixels_whose_wavelength_is_not_known_beneath_its_mask_are_dropped_as_from_files(beneath: float) -> None:
    spectrum = adopt(np.ma.array(np.where(COSMIC, beneath, WAVELENGTH)[::-1], mask=COSMIC[::-1]), FLUX[::-1])
    np.testing.assert_array_equal(spectrum.wavelength, WAVELENGTH[~COSMIC])
    np.testing.assert_array_equal(spectrum.flux, FLUX[~COSMIC])
    assert spectrum.notes == ("1 pixels without a wavelength dropped",)
    ends = np.ma.array([beneath, *WAVELENGTH[1:]], mask=[True, *[False] * 4])
    np.testing.assert_array_equal(adopt(ends, FLUX).flux, FLUX[1:])


def test_a_masked_pixel_is_as_one_without_a_number(tmp_path: Path) -> None:
    bundle, wavelength = tiny.bundle(tmp_path / "tiny.onnx"), tiny.GRID.wavelength
    hit = np.arange(50) == 20
    flux = np.where(hit, 50.0, 0.9)
    masked, empty = bundle.infer([(wavelength, np.ma.array(flux, mask=hit)), (wavelength, np.where(hit, np.nan, flux))])
    assert masked["teff"] == empty["teff"]
    assert masked["coverage"] == empty["coverage"] < 1


@pytest.mark.parametrize("make", [Spectrum, adopt])
def test_units_are_converted(make: Callable[..., Spectrum]) -> None:
    spectrum = make((WAVELENGTH * u.AA).to(u.THz, u.spectral()), FLUX * u.Jy, SIGMA * 1e3 * u.mJy)
    assert spectrum.wavelength == pytest.approx(WAVELENGTH)
    assert spectrum.sigma == pytest.approx(SIGMA)
    assert make(WAVELENGTH, FLUX * u.Jy, SIGMA).sigma == pytest.approx(SIGMA)
    assert make(WAVELENGTH, FLUX, SIGMA * 100 * u.percent).sigma == pytest.approx(SIGMA)
    assert make([one * u.AA for one in WAVELENGTH], FLUX).wavelength == pytest.approx(WAVELENGTH)


@pytest.mark.parametrize("make", [Spectrum, adopt])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((WAVELENGTH, FLUX * u.Jy, SIGMA * u.K), "sigma in 'K', needed 'Jy'"),
        ((WAVELENGTH, FLUX, SIGMA * u.Jy), "sigma in 'Jy', needed no unit"),
        ((WAVELENGTH * u.km / u.s, FLUX), "wavelength in 'km / s', needed 'Angstrom'"),
        ((WAVELENGTH, FLUX + 0j), r"flux is no array of real numbers \(type complex128"),
        ((WAVELENGTH, ["a"] * 5), "flux is no array of real numbers"),
        ((WAVELENGTH, FLUX, SIGMA[:-1]), "sigma"),
        ((np.full(5, 5000.0), FLUX), "all 5 pixels have the wavelength 5000"),
        (([5000.0, 5002.0, 5001.0, 5003.0, 5004.0], FLUX), "must ascend strictly, 5001 comes after 5002"),
        (([5000.0], [1.0]), "1 pixels, a spectrum needs at least 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    make: Callable[..., Spectrum], arrays: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(SpectrumError, match=message):
        make(*arrays)


def test_columns_of_a_plain_table_are_arrays() -> None:
    table = Table({"wave": WAVELENGTH, "flux": FLUX})
    np.testing.assert_array_equal(adopt(table["wave"], table["flux"]).wavelength, WAVELENGTH)


@pytest.mark.parametrize("kind", ["f2", ">f4", ">f8", "i2", "g"])
def test_numbers_of_any_kind_become_float64(kind: str) -> None:
    spectrum = adopt(
        np.arange(5000, 5005).astype(kind.replace("f2", "i4")), np.arange(5).astype(kind), np.ones(5, kind)
    )
    for array in (spectrum.wavelength, spectrum.flux, spectrum.sigma):
        assert array is not None
        assert array.dtype == np.float64
        assert array.dtype.isnative


def test_plain_arrays_are_not_copied() -> None:
    spectrum = Spectrum(WAVELENGTH, FLUX, SIGMA)
    assert all(np.shares_memory(*pair) for pair in [(spectrum.wavelength, WAVELENGTH), (spectrum.flux, FLUX)])


def test_plain_arrays_need_no_astropy() -> None:
    code = (
        "import sys, numpy as np\n"
        "from anna_onnx.adoption import as_spectra; from anna_onnx.inference import InferOptions\n"
        "InferOptions(level=0.9); list(as_spectra((np.arange(1.0, 9), np.ma.ones(8), np.ones(8))))\n"
        "assert 'astropy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tuple_of_spectra_is_not_one_spectrum() -> None:
    assert len(list(as_spectra(((WAVELENGTH, FLUX), (WAVELENGTH, FLUX))))) == 2
    assert len(list(as_spectra((WAVELENGTH, (FLUX, FLUX))))) == 2
    assert len(list(as_spectra(one for one in [(WAVELENGTH, FLUX, None), Spectrum(WAVELENGTH, FLUX)]))) == 2


@pytest.mark.parametrize(
    "what", [None, 3, np.array(3.0), [None], {"flux": FLUX}, Table({"flux": FLUX}), [WAVELENGTH, FLUX]]
)
def test_what_holds_no_spectra_is_refused(what: Any) -> None:
    with pytest.raises(AnnaError, match=r"^cannot infer \w+: needed a Spectrum"):
        list(as_spectra(what))


def test_one_column_is_too_few() -> None:
    with pytest.raises(AnnaError, match=r"^columns wave, needed at least the wavelength and the flux column$"):
        ReadOptions(columns="wave")


@pytest.mark.parametrize("option", [{"hdu": 0}, {"wave_unit": "nm"}, {"columns": (1, 2)}, {"merge_orders": True}])
def test_options_for_files_are_not_for_arrays(option: dict[str, Any]) -> None:
    with pytest.raises(AnnaError, match=f"{next(iter(option))} .* is an option for files"):
        list(as_spectra((WAVELENGTH, FLUX), ReadOptions(**option)))


def test_a_velocity_may_have_a_unit() -> None:
    assert Spectrum(WAVELENGTH, FLUX, radial_velocity=100 * u.m / u.s).radial_velocity == pytest.approx(0.1)
    with pytest.raises(SpectrumError, match="radial_velocity 'fast', needed a number in km/s"):
        Spectrum(WAVELENGTH, FLUX, radial_velocity="fast")


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": "0.9"},
        {"level": 2},
        {"level": True},
        {"threads": -1},
        {"threads": 1.5},
        {"device": ["cpu"]},
        {"covariance": "yes"},
        {"correct_trends": 1},
    ],
)
def test_options_of_inference_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(AnnaError, match=f"{next(iter(wrong))} .*, needed"):
        InferOptions(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rv": [1, 2]}, r"radial velocity \[1, 2\], needed a number in km/s"),
        ({"rv": True}, "radial velocity True"),
        ({"rv": 3 * u.Jy}, "radial velocity <Quantity 3. Jy>"),
        ({"rv": np.ones(1000)}, r"radial velocity array\(\[1., 1., .*\.\.\., needed"),
        ({"normalize": "yes"}, "normalize 'yes', needed True, False"),
        ({"resolution": "high"}, "resolving power 'high', needed wavelength / FWHM"),
    ],
)
def test_options_of_preparation_that_make_no_sense_are_refused_in_a_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnaError, match=message) as raised:
        PrepareOptions(**wrong)
    assert "\n" not in str(raised.value)


def test_options_of_preparation_become_numbers_of_python() -> None:
    options = PrepareOptions(100 * u.m / u.s, np.True_, np.float32(20000))
    assert options.rv == pytest.approx(0.1)
    assert options.normalize is True
    assert type(options.resolution) is float


def specutils_spectrum(**parts: Any) -> Any:
    specutils = pytest.importorskip("specutils")
    kind = getattr(specutils, "Spectrum", None) or specutils.Spectrum1D
    return kind(**{"flux": FLUX * u.Jy, "spectral_axis": WAVELENGTH * u.AA} | parts)


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(SIGMA * 1e3 * u.mJy),
        VarianceUncertainty(SIGMA**2 * 1e6 * u.mJy**2),
        InverseVariance(SIGMA**-2 * 1e-6 * u.mJy**-2),
        InverseVariance(SIGMA**-2),
    ],
)
def test_uncertainties_of_specutils_are_converted_to_the_unit_of_the_flux(uncertainty: Any) -> None:
    (spectrum,) = as_spectra(specutils_spectrum(uncertainty=uncertainty))
    assert spectrum.sigma == pytest.approx(SIGMA)


def test_velocities_of_specutils_may_differ_from_row_to_row() -> None:
    rows = specutils_spectrum(flux=np.stack([FLUX, FLUX]) * u.Jy, radial_velocity=[0, 5000] * u.m / u.s)
    assert [one.radial_velocity for one in as_spectra(rows)] == [None, 5.0]


def test_spectra_of_specutils_may_lie_along_columns() -> None:
    square = np.arange(25.0).reshape(5, 5)
    try:
        along = specutils_spectrum(flux=square * u.Jy, spectral_axis_index=0, mask=square == 5)
    except TypeError:
        pytest.skip("spectral_axis_index came with specutils 2")
    spectra = list(as_spectra(along))
    np.testing.assert_array_equal([one.flux for one in spectra], square.T)
    np.testing.assert_array_equal(spectra[0].bad, [False, True, False, False, False])


def test_a_collection_of_specutils_has_wavelengths_for_each_spectrum() -> None:
    specutils = pytest.importorskip("specutils")
    parts = {"uncertainty": StdDevUncertainty(SIGMA * u.Jy), "mask": COSMIC}
    stars = [specutils_spectrum(spectral_axis=(WAVELENGTH + shift) * u.AA, **parts) for shift in (0, 100)]
    first, second = as_spectra(specutils.SpectrumCollection.from_spectra(stars))
    np.testing.assert_allclose(second.wavelength - first.wavelength, 100)
    np.testing.assert_array_equal(second.bad, COSMIC)


def test_a_bundle_takes_quantities_as_options(tmp_path: Path) -> None:
    bundle: Bundle = tiny.bundle(tmp_path / "tiny.onnx")
    flux = np.where(tiny.GRID.wavelength < 6024.5, 0.9, 0.8)
    table = bundle.infer((tiny.GRID.wavelength, flux), rv=5000 * u.m / u.s, medium="air", frame="barycentric")
    assert table["rv"].to_value("km/s") == pytest.approx([5.0])
