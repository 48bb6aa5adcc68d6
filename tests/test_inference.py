"""From spectra in any form to a table, in order, whatever is wrong with one of them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from anna_onnx import Bundle, Spectrum
from anna_onnx.adoption import as_spectra
from anna_onnx.blocks import PIXELS, ROWS, Block, Failure, Part, as_blocks, count_rows, read_blocks
from anna_onnx.calibration import Calibration, Trends
from anna_onnx.errors import AnnaError, BundleError, ReadError
from anna_onnx.flags import Flag
from anna_onnx.inference import Inference, InferOptions, half_width, infer, infer_files, run_selftest
from anna_onnx.preparation import PrepareOptions
from anna_onnx.readers import ReadOptions, iter_spectra, read_spectra
from anna_onnx.readers.series import INDIFFERENT, Series
from anna_onnx.results import join
from anna_onnx.spectrum import Source
from anna_onnx.trainingset import TrainingSetWriter
from tests import tiny
from tests.readers.files import multispec_bytes, table, write_hdus

approx = pytest.approx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny.bundle(tmp_path_factory.mktemp("bundle") / "tiny.onnx")


ELSEWHERE = np.arange(8000.0, 8100)


def star(blue: float, red: float = 1.0, **facts: Any) -> Spectrum:
    wavelength = facts.pop("wavelength", tiny.GRID.wavelength)
    return Spectrum(wavelength, np.where(wavelength < 6024.5, blue, red), **{"medium": "air", "frame": "rest", **facts})


def write_training_set(path: Path, flux: np.ndarray, **columns: Any) -> Path:
    n = len(flux)
    kinds = {name: True for name in ("sigma", "mask") if name in columns}
    with TrainingSetWriter(path, tiny.GRID, ["teff"], ["K"], n, **kinds) as writer:
        writer.append(flux, np.zeros((n, 1)), np.arange(n, dtype=np.float64), **columns)
    return path


def test_labels_and_errors_of_one_star(bundle: Bundle) -> None:
    (rows,) = infer(bundle, [star(0.9, 0.8)])
    assert rows.values[0] == approx([4900, 2.6], rel=1e-5)
    assert rows.errors[0] == approx(tiny.SIGMA, rel=1e-3)


def test_stars_come_out_in_the_order_they_went_in(bundle: Bundle) -> None:
    other = np.arange(5990.25, 6060.0, 0.5)
    stars = [star(1 - i / 1000, id=str(i), **({"wavelength": other} if i % 50 > 40 else {})) for i in range(500)]
    rows = join(list(infer(bundle, stars, InferOptions(threads=3))))
    assert list(rows.id) == [str(i) for i in range(500)]
    assert rows.values[:, 0] == approx(np.array([5000 - i for i in range(500)]), abs=1)


def test_a_value_that_is_no_number_is_flagged(tmp_path: Path) -> None:
    broken = tiny.model(bias=np.array([np.nan, 1], np.float32)).SerializeToString()
    rows = join(list(infer(Bundle("broken", broken, tiny.sidecar()), [star(1.0)])))
    assert rows.flags[0] & Flag.outside_labels


def test_a_star_elsewhere_in_the_spectrum_has_no_labels(bundle: Bundle) -> None:
    rows = join(list(infer(bundle, [star(1.0, wavelength=ELSEWHERE)])))
    assert np.isnan(rows.values).all()
    assert rows.flags[0] & Flag.no_coverage


def test_a_few_pixels_have_no_labels_and_the_message_says_how_many_are_needed(bundle: Bundle) -> None:
    some = join(list(infer(bundle, [star(1.0, wavelength=tiny.GRID.wavelength[:n]) for n in (9, 10)])))
    assert np.isfinite(some.values).all(axis=1).tolist() == [False, True]
    assert [Flag(int(bits)) for bits in some.flags] == [Flag.no_coverage, Flag.partial_coverage]
    assert "covers 18% of 6000.0-6049.0 Å (air), the model needs 99%, and for any labels 19.8%" in some.messages[0]


@pytest.mark.parametrize("level", [-0.5, 0.0, 1.0, 1.5, np.nan])
def test_a_level_that_is_no_probability_is_refused(bundle: Bundle, level: float) -> None:
    with pytest.raises(AnnaError, match="above 0 and below 1"):
        half_width(bundle, np.ones((1, 2)), np.ones(1), level)


def test_intervals_hold_what_the_calibration_says(bundle: Bundle) -> None:
    calibration = Calibration(
        np.array([0.5, 0.6827, 0.9]), np.array([100.0]), np.array([[[1, 2, 3], [2, 4, 6.0]]]), 100
    )
    calibrated = Bundle("tiny", bundle.network, tiny.sidecar(calibration=calibration))
    (rows,) = infer(calibrated, [star(1.0)], InferOptions(level=0.9))
    assert rows.errors[0] == approx([100, 0.4], rel=1e-4)
    assert rows.lo is not None
    assert (rows.values - rows.lo)[0] == approx([150, 0.6], rel=1e-4)
    with pytest.raises(BundleError, match="calibrated from"):
        Inference(calibrated, InferOptions(level=0.99))


def test_correlations_come_when_asked_and_where_there_are_labels(bundle: Bundle, tmp_path: Path) -> None:
    correlated = Bundle("tiny", tiny.correlated_model().SerializeToString(), tiny.sidecar())
    options = InferOptions(covariance=True)
    rows = join(list(infer(correlated, [star(1.0), star(8 / 9, 8 / 9), star(1.0, wavelength=ELSEWHERE)], options)))
    assert rows.correlations is not None
    assert rows.correlations[:2, 0] == approx([-0.5, -4 / 9])
    assert np.isnan(rows.correlations[2, 0])
    (unreadable,) = infer_files(correlated, [str(tmp_path / "absent.fits")], options)
    assert unreadable.correlations is not None
    assert np.isnan(unreadable.correlations).all()
    (without,) = infer(correlated, [star(1.0)])
    assert without.correlations is None
    with pytest.raises(BundleError, match="tiny: infers no covariance; networks trained with covariance = true do"):
        Inference(bundle, options)


def test_trends_are_taken_out_when_asked(bundle: Bundle) -> None:
    shifted = Bundle("tiny", bundle.network, tiny.sidecar(trends=Trends(np.array([[0.1, 1.0], [0.0, 1.0]]))))
    (rows,) = infer(shifted, [star(1.0)], InferOptions(correct_trends=True))
    assert rows.values[0] == approx([5500, 3], rel=1e-5)
    with pytest.raises(BundleError, match="no residual trends"):
        Inference(bundle, InferOptions(correct_trends=True))


def test_a_velocity_cannot_be_measured_without_a_mean_spectrum(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no mean spectrum"):
        Inference(bundle, InferOptions(prepare=PrepareOptions(rv="auto")))


def test_the_selftest_finds_a_machine_that_differs(bundle: Bundle) -> None:
    assert run_selftest(bundle) < 1e-6
    other = Bundle("tiny", tiny.model(bias=np.array([4010, 1], np.float32)).SerializeToString(), tiny.sidecar())
    assert run_selftest(other) == approx(10 / 5000, rel=1e-3)


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_flux_that_is_too_large_is_bad_without_a_warning(bundle: Bundle) -> None:
    with np.errstate(all="raise"):
        rows = join(list(infer(bundle, [star(1e300)])))
    assert rows.coverage[0] == approx(0.5)


def test_consecutive_stars_on_the_same_wavelengths_make_a_block() -> None:
    sizes = [len(block) for block in as_blocks([star(1.0)] * 300 + [star(1.0, frame="barycentric")] * 2)]
    assert sizes == [ROWS, ROWS, 300 - 2 * ROWS, 2]


def test_a_block_of_long_spectra_is_small() -> None:
    long = np.linspace(3000, 9000, PIXELS // 2)
    assert [len(block) for block in as_blocks([star(1.0, wavelength=long)] * 3)] == [2, 1]


def test_a_training_set_comes_in_blocks_as_it_would_one_by_one(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    flux = random.uniform(0.5, 1, (300, 50)).astype(np.float32)
    flux[7, :9] = 0  # padding
    sigma = np.full_like(flux, 0.01)
    sigma[20] = 0  # no errors at all
    sigma[30, 3] = 1e11  # no measurement
    mask = np.zeros(flux.shape, np.uint8)
    mask[40, 5] = 1
    path = write_training_set(tmp_path / "set.h5", flux, sigma=sigma, mask=mask)
    one_by_one = list(iter_spectra(path))
    blocks = [block for block in read_blocks([Part(str(path))], ReadOptions()) if isinstance(block, Block)]
    at = 0
    for block in blocks:
        for row in range(len(block)):
            single = one_by_one[at]
            bad = ~np.isfinite(block.flux[row]) | (False if block.bad is None else block.bad[row])
            if block.sigma is not None:
                bad |= ~(block.sigma[row] > 0)
            np.testing.assert_array_equal(bad, single.bad)
            np.testing.assert_array_equal(block.flux[row], single.flux)
            assert (block.sigma is None) == (single.sigma is None)
            assert (block.ids[row], block.rows[row]) == (single.id, single.source.row)
            at += 1
    assert at == 300


@pytest.mark.parametrize(("stated", "medium"), [("vacuum", "vacuum"), ("rest", "unknown")])
def test_the_medium_of_a_training_set_is_the_same_in_blocks_as_one_by_one(
    tmp_path: Path, stated: str, medium: str
) -> None:
    path = write_training_set(tmp_path / "set.h5", np.ones((3, 50), np.float32))
    with h5py.File(path, "a") as file:
        file["wavelength"].attrs["medium"] = stated
    (block,) = read_blocks([Part(str(path))], ReadOptions())
    assert isinstance(block, Block)
    assert {block.setting.medium, *(one.medium for one in iter_spectra(path))} == {medium}


def test_a_part_of_a_training_set_is_read_from_the_middle(tmp_path: Path) -> None:
    path = write_training_set(tmp_path / "set.h5", np.ones((300, 50), np.float32))
    (block,) = read_blocks([Part(str(path), 250, 260)], ReadOptions())
    assert isinstance(block, Block)
    assert list(block.rows) == list(range(250, 260))
    assert count_rows(str(path)) == 300


@pytest.mark.parametrize("order", "<>")
def test_legacy_binary_files_come_in_blocks(tmp_path: Path, order: str) -> None:
    stars = [np.concatenate([[i, 5000.0, 0.0], np.full(50, 1 - i / 1000)]) for i in range(200)]
    content = np.concatenate([[50, 1], tiny.GRID.wavelength, *stars])
    content.astype(f"{order}f8").tofile(tmp_path / "train.bin")
    blocks = list(read_blocks([Part(str(tmp_path / "train.bin"), first=100)], ReadOptions(medium="air")))
    assert [len(block) for block in blocks if isinstance(block, Block)] == [100]
    assert isinstance(blocks[0], Block)
    assert (blocks[0].ids[0], blocks[0].setting.medium) == ("100", "air")
    assert blocks[0].flux[0] == approx(0.9)


def test_a_bad_star_of_a_legacy_binary_file_costs_one_row(bundle: Bundle, tmp_path: Path) -> None:
    stars = np.ones((4, 53))
    stars[:, 0], stars[:, 3:] = range(4), 0.9
    stars[1, 3:], stars[2, 10], stars[3, 1] = np.nan, np.inf, np.nan  # no flux, a bad pixel, a label not known
    np.concatenate([[50, 1], tiny.GRID.wavelength, *stars]).tofile(tmp_path / "train.bin")
    rows = join(list(infer_files(bundle, [str(tmp_path / "train.bin")])))
    assert [bool(bits & Flag.no_coverage) for bits in rows.flags] == [False, True, False, False]
    assert np.isfinite(rows.values).all(axis=1).tolist() == [True, False, True, True]


def test_what_cannot_be_read_becomes_a_row_in_its_place(bundle: Bundle, tmp_path: Path) -> None:
    good = tiny.write_star(tmp_path / "good.txt")
    (tmp_path / "empty.fits").touch()
    files = [str(tmp_path / name) for name in ("good.txt", "empty.fits", "absent.fits", "good.txt")]
    rows = join(list(infer_files(bundle, files)))
    assert list(rows.file) == files
    assert [bool(bits & Flag.unreadable) for bits in rows.flags] == [False, True, True, False]
    assert "empty" in rows.messages[1]
    assert rows.values[3, 0] == approx(5000, rel=1e-4)
    assert good.exists()


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_a_bad_aperture_costs_no_other(bundle: Bundle, tmp_path: Path, bad: int) -> None:
    flux = np.ones((4, tiny.GRID.n_pixel), dtype="f4")
    specs = [f"{i} 1 0 6000 1 {tiny.GRID.n_pixel} 0. 1. 2." for i in range(1, 5)]
    specs[bad] = "1 1 2 1. 1. 9 0. 1. 2. 1. 0. 9 2 1 2 5000 1"  # there is no function of type 9
    path = tmp_path / "stars.ms.fits"
    path.write_bytes(multispec_bytes(flux, specs))
    rows = join(list(infer_files(bundle, [str(path), str(path)])))
    assert list(rows.hdu) == [0] * 8
    assert list(rows.row) == [0, 1, 2, 3] * 2
    assert [bool(bits & Flag.unreadable) for bits in rows.flags] == [row == bad for row in rows.row]
    assert "type 9" in rows.messages[bad]
    with pytest.raises(ReadError, match="type 9"):
        read_spectra(path)


def test_a_bad_row_of_a_table_costs_no_other(bundle: Bundle, tmp_path: Path) -> None:
    wave = np.repeat(tiny.GRID.wavelength[None], 3, axis=0)
    wave[1] = np.nan
    path = write_hdus(tmp_path / "t.fits", table(wave=wave, flux=np.ones_like(wave)))
    rows = join(list(infer_files(bundle, [str(path)])))
    assert list(rows.row) == [0, 1, 2]
    assert [bool(bits & Flag.unreadable) for bits in rows.flags] == [False, True, False]
    from_python = bundle.infer(path)
    assert list(from_python["row"]) == [0, 1, 2]
    assert from_python["teff"].value == approx(rows.values[:, 0], nan_ok=True)
    assert list(from_python["message"]) == list(rows.messages)


def test_a_file_that_fails_says_that_its_rest_was_not_read_also_when_a_run_is_resumed_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_after_two(path: str, options: ReadOptions) -> Any:
        yield from (star(0.9), star(0.8))
        raise ReadError(f"{path}: cut short")

    monkeypatch.setattr("anna_onnx.blocks.read_each", fail_after_two)
    for first in (0, 2):
        *_, failure = read_blocks([Part("a.fits", first)], ReadOptions())
        assert failure == Failure("a.fits", "a.fits: cut short; the rest of the file was not read")


def test_zeros_mean_no_flux_from_python_as_from_files(bundle: Bundle) -> None:
    padded = np.where(tiny.GRID.wavelength < 6010, 0, star(0.9).flux)
    table = bundle.infer([Spectrum(tiny.GRID.wavelength, flux, medium="air") for flux in (0 * padded, padded)])
    assert ["no_coverage" in flags for flags in table["flags"]] == [True, False]
    assert table["coverage"] == approx([0, 0.8])


def test_a_bug_in_a_reader_costs_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(path: str, options: ReadOptions) -> Any:
        raise IndexError("oops")

    monkeypatch.setattr("anna_onnx.blocks.read_each", fail)
    (item,) = read_blocks([Part(str(tiny.write_star(tmp_path / "star.txt")))], ReadOptions())
    assert isinstance(item, Failure)
    assert "IndexError: oops" in item.message


# --- series of similar files ------------------------------------------------------------------------------------------


def write_fits(path: Path, flux: np.ndarray, **cards: Any) -> str:
    from astropy.io import fits

    hdu = fits.PrimaryHDU(flux.astype(np.float32))
    hdu.header.update({"CRVAL1": 6000.0, "CDELT1": 1.0, "CRPIX1": 1.0, "CTYPE1": "AWAV", "CUNIT1": "Angstrom", **cards})
    hdu.writeto(path)
    return str(path)


FLUX = np.linspace(0.5, 1.0, 60)


@pytest.mark.parametrize(
    ("flux", "cards"),
    [
        (FLUX, {"OBJECT": "b's star", "DATE-OBS": "2024-02-03", "AIRMASS": 1.5}),
        (np.where(FLUX < 0.6, 0, FLUX), {"OBJECT": "padded"}),
        (np.where(FLUX > 0.9, np.nan, FLUX), {"OBJECT": "with NaN"}),
        (FLUX, {"OBJECT": ""}),
        (FLUX, {"OBJECT": "elsewhere", "CRVAL1": 6010.0}),
        (FLUX, {"OBJECT": "in vacuum", "CTYPE1": "WAVE"}),
        (FLUX, {"OBJECT": "resting", "SPECSYS": "SOURCE"}),
        (FLUX[:50], {"OBJECT": "shorter"}),
        (FLUX, {"OBJECT": "scaled", "BSCALE": 2.0}),
    ],
)
def test_a_series_reads_what_the_ordinary_way_reads(tmp_path: Path, flux: np.ndarray, cards: dict[str, Any]) -> None:
    usual = {"OBJECT": "a", "DATE-OBS": "2024-01-01", "AIRMASS": 1.0}
    first = write_fits(tmp_path / "a.fits", FLUX, **usual)
    second = write_fits(tmp_path / "b.fits", flux, **{**usual, **cards})
    series = Series(ReadOptions())
    series.learn(first, next(iter_spectra(first)))
    found = series.read([first, second, second])
    assert found is not None
    spectra = list(found.spectra())
    unusual = {"CRVAL1", "CTYPE1", "SPECSYS", "BSCALE"} & set(cards) or len(flux) != len(FLUX) or not cards["OBJECT"]
    assert len(spectra) == (1 if unusual else 3)
    for spectrum, path in zip(spectra, [first, second, second], strict=False):
        for name, value in vars(next(iter_spectra(path))).items():
            np.testing.assert_array_equal(getattr(spectrum, name), value)


def test_many_files_of_a_series_come_in_blocks_in_their_place(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    stars = [
        write_fits(tmp_path / f"{i}.fits", random.uniform(0.5, 1, 60), OBJECT=f"star {i}", RV=12.5) for i in range(90)
    ]
    other = write_fits(tmp_path / "other.fits", FLUX, OBJECT="other", CRVAL1=6010.0)
    missing = str(tmp_path / "missing.fits")
    files = [*stars[:60], other, missing, *stars[60:]]
    items = list(read_blocks(map(Part, files), ReadOptions()))
    names, at = [file for item in items for file in (item.files if isinstance(item, Block) else [item.file])], 0
    assert names == files
    assert max(len(item) for item in items if isinstance(item, Block)) >= 16
    for block in items:
        if isinstance(block, Block):
            for row in range(len(block)):
                single = next(iter_spectra(files[at + row]))
                np.testing.assert_array_equal(block.flux[row], single.flux.astype(np.float32))
                assert block.setting.wavelength[0] == single.wavelength[0]
                assert (block.ids[row], block.notes[row], block.hdus[row]) == (single.id, single.notes, 0)
                assert block.radial_velocity is None or block.radial_velocity[row] == single.radial_velocity
            at += len(block)
        else:
            at += 1


def test_no_reader_looks_at_the_cards_that_a_series_ignores() -> None:
    import ast

    import anna_onnx.readers

    words: set[str] = set()
    for path in Path(anna_onnx.readers.__file__).parent.glob("*.py"):
        if path.name in ("series.py", "units.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 400:
                words.update(node.value.split())
    assert not words & {word.strip() for word in INDIFFERENT}


# --- what Python users have -------------------------------------------------------------------------------------------


def test_arrays_in_one_table_with_units(bundle: Bundle) -> None:
    from astropy import units as u

    wavelength = tiny.GRID.wavelength
    table = bundle.infer((wavelength, np.ones((3, 50))), medium="air", frame="rest")
    assert len(table) == 3
    assert table["teff"].unit == u.K
    assert table["teff"][0].value == approx(5000)
    assert bundle.infer((wavelength[::-1] / 10 * u.nm, np.ones(50) * u.Jy), medium="air")["teff"][0].value == approx(
        5000
    )


def test_errors_come_along(bundle: Bundle) -> None:
    (one,) = as_spectra((tiny.GRID.wavelength, np.ones(50), np.full(50, 0.1)))
    assert one.sigma is not None
    assert bundle.infer((tiny.GRID.wavelength, np.ones(50), np.full(50, 0.1)))["snr"][0] == approx(10)


def test_objects_of_specutils(bundle: Bundle) -> None:
    specutils = pytest.importorskip("specutils")
    from astropy import units as u
    from astropy.nddata import InverseVariance

    kind = getattr(specutils, "Spectrum", None) or specutils.Spectrum1D
    flux = np.stack([np.full(50, 0.9), np.full(50, 0.8)])
    spectrum = kind(
        flux=flux * u.Jy,
        spectral_axis=tiny.GRID.wavelength * u.AA,
        uncertainty=InverseVariance(np.full(flux.shape, 1e4)),
        mask=np.zeros(flux.shape, dtype=bool),
    )
    table = bundle.infer(spectrum, medium="air")
    assert table["teff"].value == approx([4900, 4800])
    assert table["snr"] == approx([90, 80])


def test_files_and_spectra_in_one_list(bundle: Bundle, tmp_path: Path) -> None:
    path = tiny.write_star(tmp_path / "star.txt", blue=0.9)
    table = bundle.infer([path, star(0.8, source=Source("memory")), str(path)])
    assert table["teff"].value == approx([4900, 4800, 4900], rel=1e-4)


@pytest.mark.parametrize("what", [3, [3], {"flux": 1}, (np.ones((2, 2)), np.ones((2, 2)))])
def test_what_is_no_spectrum_is_refused(bundle: Bundle, what: Any) -> None:
    with pytest.raises((AnnaError, TypeError)):
        bundle.infer(what)


def test_no_spectra_at_all_are_refused(bundle: Bundle) -> None:
    with pytest.raises(AnnaError, match="no spectra"):
        bundle.infer([])
