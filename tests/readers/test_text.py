"""Text, CSV, ECSV, VOTable, HDF5, the old ANNA's binary files, and gzip of any."""

from __future__ import annotations

import contextlib
import gzip

import numpy as np
import pytest
from astropy.io.votable import from_table
from astropy.table import Column, MaskedColumn, Table

from anna_onnx.blocks import Part, read_blocks
from anna_onnx.errors import AnnaError, NoWavelengthError, ReadError
from anna_onnx.readers import ReadOptions, iter_spectra, read_spectra
from anna_onnx.resampling import Grid
from anna_onnx.trainingset import TrainingSetWriter
from tests.readers.files import image_bytes

N = 30
WAVE = 5000 + 0.5 * np.arange(N)
FLUX = np.linspace(0.5, 1.5, N)
ERROR = 0.01 * FLUX


def lines(*columns, separator=" "):
    return "\n".join(separator.join(repr(float(value)) for value in row) for row in zip(*columns, strict=True)) + "\n"


@pytest.fixture
def read(tmp_path):
    def reader(text, **options):
        path = tmp_path / "star.txt"
        path.write_text(text, encoding="utf-8")
        return read_spectra(path, **options)

    return reader


@pytest.mark.parametrize(
    "text",
    [
        lines(WAVE, FLUX, ERROR),
        lines(WAVE, FLUX, ERROR, separator="\t"),
        lines(WAVE, FLUX, ERROR, separator=", "),
        lines(WAVE, FLUX, ERROR, separator=";"),
        "# wavelength flux error\n" + lines(WAVE, FLUX, ERROR),
        "# Teff 5777\n% another comment\n" + lines(WAVE, FLUX, ERROR),
        "wave,flux,err\n" + lines(WAVE, FLUX, ERROR, separator=","),
        '"wave","flux","err"\n' + lines(WAVE, FLUX, ERROR, separator=","),
        "waveobs\tflux\terr\n" + lines(WAVE / 10, FLUX, ERROR, separator="\t"),
        "wavelength (nm), flux, sigma\n" + lines(WAVE / 10, FLUX, ERROR, separator=","),
        "# wavelength flux error\n# nm none none\n" + lines(WAVE / 10, FLUX, ERROR),
        "flux,err,lambda\n" + lines(FLUX, ERROR, WAVE, separator=","),
        "index,wave,flux,err\n" + lines(np.arange(N), WAVE, FLUX, ERROR, separator=","),
        "wave ivar flux\n" + lines(WAVE, ERROR**-2.0, FLUX),
        "\ufeff" + lines(WAVE / 1e4, FLUX, ERROR).replace("\n", "\r\n"),
        lines(WAVE[::-1], FLUX[::-1], ERROR[::-1]),
        lines(WAVE, FLUX, ERROR).replace("e", "E"),
        "\n".join(f"{w:.6E} {f:.17E} {e:.17E}".replace("E", "D") for w, f, e in zip(WAVE, FLUX, ERROR, strict=True)),
        "# Column 1: WAVELENGTH (nm, air)\n# Column 2: FLUX\n# Column 3: IVAR\n" + lines(WAVE / 10, FLUX, ERROR**-2.0),
        "# 1 wave [um] of the pixel\n# 2 flux\n# 3 sigma\n" + lines(WAVE / 1e4, FLUX, ERROR),
        "Wavelength (nm)\tNormalised flux\tFlux error\n" + lines(WAVE / 10, FLUX, ERROR, separator="\t"),
        "\\type=scanned\n| wave|flux|err|\n| double|double|double|\n|nm|Jy|Jy|\n|null|||\n"
        + lines(WAVE / 10, FLUX, ERROR),
    ],
)
def test_columns_are_understood_with_and_without_a_header(read, text):
    (star,) = read(text)
    np.testing.assert_allclose(star.wavelength, WAVE, rtol=1e-12)
    np.testing.assert_allclose(star.flux, FLUX)
    np.testing.assert_allclose(star.sigma, ERROR)


@pytest.mark.parametrize("separator", [";", "\t", "  ", " ; "])
def test_commas_may_be_decimal_points(read, separator):
    text = lines(WAVE, FLUX, ERROR, separator=separator).replace(".", ",")
    for head in ("", separator.join(["lambda", "flux", "err\n"])):
        (star,) = read(head + text)
        np.testing.assert_array_equal([star.wavelength, star.flux, star.sigma], [WAVE, FLUX, ERROR])
        assert "commas in numbers taken as decimal points" in star.notes


def test_commas_between_whole_numbers_part_columns(read):
    (star,) = read("\n".join(f"{wave},{100 + wave % 7}" for wave in range(5000, 5030)))
    assert (star.wavelength[0], star.flux[0]) == (5000, 102)


def test_two_columns_have_no_errors_and_an_unknown_medium(read):
    (star,) = read(lines(WAVE, FLUX))
    assert (star.sigma, star.medium, star.frame) == (None, "unknown", "unknown")


def test_comments_may_state_the_medium_and_the_name(read):
    (star,) = read("# vacuum wavelengths\n# object: HD 140283\n" + lines(WAVE, FLUX))
    assert (star.medium, star.id) == ("vacuum", "HD 140283")


@pytest.mark.parametrize("comment", ["wavelengths in air; no telluric correction", "wavelengths in a\u0131r"])
def test_a_comment_may_deny_other_corrections_than_that_to_a_medium(read, comment):
    (star,) = read(f"# {comment}\n" + lines(WAVE, FLUX))
    assert star.medium == "air"


@pytest.mark.parametrize("comment", ["wavelengths are not in vacuum", "wavelength and air mass", "wavelength: air/vac"])
def test_comments_that_only_mention_a_medium_do_not_state_it(read, comment):
    assert read(f"# {comment}\n" + lines(WAVE, FLUX))[0].medium == "unknown"


@pytest.mark.parametrize(
    ("name", "medium"),
    [
        ("wave_vac", "vacuum"),
        ("Wavelength (air)", "air"),
        ("Wavelength [Angstrom in air]", "air"),
        ("LAMBDA_AIR", "air"),
        ("wave", "unknown"),
    ],
)
def test_the_name_of_the_column_may_state_the_medium(read, name, medium):
    (star,) = read(f"{name},flux\n" + lines(WAVE, FLUX, separator=","))
    assert star.medium == medium


def test_missing_values_become_bad_pixels(read):
    text = "wave,flux,err\n" + lines(WAVE, FLUX, ERROR, separator=",").replace(repr(float(FLUX[4])), "", 1)
    (star,) = read(text)
    assert np.flatnonzero(star.bad).tolist() == [4]


def test_huge_errors_mean_no_measurement_but_beside_huge_fluxes(read):
    (star,) = read(lines(WAVE, 3e14 * FLUX, 1e12 * FLUX))
    np.testing.assert_allclose(star.sigma, 1e12 * FLUX)
    assert not star.bad.any()
    for scale, huge in ((1.0, 1e10), (3e14, 1e19)):
        (star,) = read(lines(WAVE, scale * FLUX, np.where(np.arange(N) == 4, huge, scale * ERROR)))
        assert np.flatnonzero(star.bad).tolist() == [4]


@pytest.mark.parametrize(("wave", "found"), [(0 * WAVE + 5000, "all 30 pixels is 5000"), (0 * WAVE, "no positive")])
def test_wavelengths_that_are_all_equal_are_refused(read, wave, found):
    with pytest.raises(NoWavelengthError, match=found):
        read(lines(wave, FLUX))


def test_masks_may_be_words(read):
    rows = (f"{w},{f},{e},{i == 4}" for i, (w, f, e) in enumerate(zip(WAVE, FLUX, ERROR, strict=True)))
    (star,) = read("wave,flux,err,mask\n" + "\n".join(rows))
    assert np.flatnonzero(star.bad).tolist() == [4]


@pytest.mark.parametrize(
    "third",
    [
        FLUX - 1,
        3e5 * FLUX,
        1e-7 * FLUX,
        np.full(N, 100.5),
        np.arange(N) % 2,
        np.repeat([70, 71], N // 2),
        np.full(N, np.nan),
    ],
    ids=["negative", "raw flux", "normalised flux", "S/N", "flags", "orders", "nothing"],
)
def test_a_third_column_without_a_name_is_no_error_when_it_cannot_be_one(read, third):
    (star,) = read(lines(WAVE, FLUX, third))
    assert (star.sigma, star.bad.any()) == (None, False)


def test_the_same_flux_in_another_unit_is_no_error(read):
    wave = np.linspace(5000, 9000, N)
    (star,) = read(lines(wave, FLUX, 1.5e-8 * wave**2 * FLUX))  # of a hertz
    assert star.sigma is None
    (star,) = read(lines(wave, FLUX, 0.1 * FLUX))
    assert star.sigma is not None


@pytest.mark.parametrize(
    "header", ["|  wavelength| transmittance|\n|double|double|\n|nm| |\n", "# wavelength in nm and what passes\n"]
)
def test_the_unit_counts_also_when_the_other_columns_are_not_understood(read, header):
    (star,) = read(header + lines(WAVE / 2, FLUX))
    np.testing.assert_allclose(star.wavelength, 5 * WAVE)


def test_a_few_long_lines_are_columns(read):
    wave, flux = WAVE.repeat(5) + np.tile(np.linspace(0, 0.1, 5), N), FLUX.repeat(5)
    (star,) = read(lines(*zip(wave, flux, 0.1 * flux, strict=True)))
    np.testing.assert_allclose(star.wavelength, wave)
    np.testing.assert_allclose(star.sigma, 0.1 * flux)


@pytest.mark.parametrize(
    ("names", "sigma", "note"),
    [
        ("wave,star1,star2", None, "column star1 taken as flux; left out: star2"),
        ("lambda_obs,obs,model", None, "column obs taken as flux; left out: model"),
        ("lambda_obs,obs,err", ERROR, "column obs taken as flux"),
        ("star1,star2", ERROR, "third column taken as error"),
        ("wave,obs,continuum", None, "column obs taken as flux; left out: continuum"),
        ("wavelengths,vacuum,corrected", ERROR, "third column taken as error"),
    ],
)
def test_under_a_header_no_column_without_a_known_name_is_an_error(read, names, sigma, note):
    (star,) = read(f"{names}\n" + lines(WAVE, FLUX, ERROR, separator=","))
    np.testing.assert_array_equal(star.flux, FLUX)
    np.testing.assert_array_equal(star.sigma, sigma)
    assert note in star.notes


@pytest.mark.parametrize("name", ["error", "ivar", "mask", "S/N", "continuum", "sky", "model", "telluric", "wave_air"])
def test_what_is_named_as_something_else_is_no_flux(read, name):
    (star,) = read(f"wavelength,{name},normalised\n" + lines(WAVE, 50 * FLUX, FLUX, separator=","))
    np.testing.assert_array_equal(star.flux, FLUX)
    assert "column normalised taken as flux" in str(star.notes)
    with pytest.raises(ReadError, match=f"wavelength, {name}: no flux among them"):
        read(f"wavelength,{name}\n" + lines(WAVE, FLUX, separator=","))


def test_no_column_beside_words_is_taken_as_flux(read):
    with pytest.raises(ReadError, match="wavelength, element, EP, some of words: no wavelength and flux"):
        read("wavelength,element,EP\n6000.1,Fe I,2.5\n6000.7,Ti I,3.1\n6001.5,Fe I,1.2\n")


def test_the_flux_stands_after_the_wavelength_whose_name_is_known(read):
    (star,) = read("index,wave_vac,value\n" + lines(np.arange(N), WAVE, FLUX, separator=","))
    np.testing.assert_array_equal(star.wavelength, WAVE)
    np.testing.assert_array_equal(star.flux, FLUX)


@pytest.mark.parametrize("comment", ["resampled 2nd wavelength", "wavelength in Angstrom", "lambda and sigma"])
def test_a_comment_of_as_many_words_is_no_header(read, comment):
    (star,) = read(f"# {comment}\n" + lines(WAVE, FLUX[np.arange(N) ^ 1], ERROR[np.arange(N) ^ 1]))
    np.testing.assert_array_equal(star.wavelength, WAVE)
    np.testing.assert_array_equal(star.sigma, ERROR[np.arange(N) ^ 1])


def test_columns_that_are_left_out_are_noted(read):
    (star,) = read(lines(WAVE, FLUX, ERROR, FLUX, FLUX))
    assert {"third column taken as error", "left out, without a name: column 4, 5"} <= set(star.notes)


def test_magnitudes_are_no_fluxes(read):
    with pytest.raises(ReadError, match="magnitudes"):
        read("wave,magnitude\n" + lines(WAVE, 12 + FLUX, separator=","))


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("names", ["name wave flux", "wave flux quality", "wave comment flux"])
def test_columns_of_words_do_not_hide_those_of_numbers(read, names, separator):
    cells = {"wave": WAVE, "flux": FLUX}
    rows = zip(*(cells.get(name, [f"star{i}" for i in range(N)]) for name in names.split()), strict=True)
    body = "\n".join(separator.join(map(str, row)) for row in rows)
    for columns in (None, ("wave", "flux")):
        (star,) = read(f"{names.replace(' ', separator)}\n{body}", columns=columns)
        np.testing.assert_array_equal(star.wavelength, WAVE)
        np.testing.assert_array_equal(star.flux, FLUX)
        assert not star.bad.any()
    (star,) = read(body, columns=[i for i, name in enumerate(names.split(), 1) if name in cells])
    np.testing.assert_array_equal(star.flux, FLUX)
    with pytest.raises(ReadError, match="say which with columns"):
        read(body)
    with pytest.raises(ReadError, match="holds no numbers"):
        read(f"{names.replace(' ', separator)}\n{body}", columns=({*names.split()} - {*cells}).pop() + ",flux")


def test_stars_and_orders_below_one_another_are_spectra_of_their_own(read):
    stars = "star,wave,flux\n" + "".join(f"HD {i % 2},{5000 + i // 2},{1 + i % 2}\n" for i in range(2 * N))
    spectra = read(stars)
    assert [(star.id, star.source.row, star.n_pixel) for star in spectra] == [("HD 0", 0, N), ("HD 1", 1, N)]
    assert [set(star.flux) for star in spectra] == [{1.0}, {2.0}]
    apart = read(stars, merge_orders=True)
    assert "not merged: their names differ" in apart[0].notes
    orders = lines(np.repeat([70, 71], N), np.append(WAVE, WAVE + 10.25), np.tile(FLUX, 2), separator=",")
    assert [order.source.row for order in read(f"order,wave,flux\n{orders}")] == [0, N]
    (merged,) = read(f"order,wave,flux\n{orders}", merge_orders=True)
    assert N < merged.n_pixel < 2 * N
    assert (merged.source.row, merged.bad.any()) == (None, False)


@pytest.mark.parametrize("name", ["id", "name", "order"])
def test_a_column_that_does_not_repeat_numbers_the_pixels(read, name):
    (star,) = read(f"{name},wave,flux\n" + lines(np.arange(N), WAVE, FLUX, separator=","))
    assert (star.n_pixel, star.id, star.source.row) == (N, "", None)


def test_libre_esprit_orders_are_sorted_or_merged(read):
    wave = np.concatenate([WAVE, WAVE + 10.25]) / 10
    flux = np.tile(FLUX, 2)
    text = f"***Reduced spectrum of 'HD 1'\n {2 * N} 2\n" + lines(wave, flux, 0.01 * flux)
    (star,) = read(text)
    assert (star.n_pixel, star.medium, star.id) == (2 * N, "air", "HD 1")
    assert (np.diff(star.wavelength) > 0).all()
    (merged,) = read(text, merge_orders=True)
    assert N < merged.n_pixel < 2 * N


def test_stars_above_a_table_do_not_make_it_one_of_libre_esprit(read):
    (star,) = read("****** Lines\n" + lines(WAVE, FLUX))
    assert (star.medium, star.wavelength[0]) == ("unknown", WAVE[0])


def test_a_name_in_every_line_is_that_of_the_star(read):
    (star,) = read("obj,wave,flux\n" + "".join(f"Gl 581,{w},{f}\n" for w, f in zip(WAVE, FLUX, strict=True)))
    assert star.id == "Gl 581"
    two = "obj,wave,flux\n" + "".join(f"HD {i % 2},{5000 + i // 2},1\n" for i in range(2 * N))
    assert [star.id for star in read(two)] == ["HD 0", "HD 1"]


def test_a_unit_that_the_user_states_wins_over_that_of_the_format(read):
    (star,) = read("***Reduced spectrum of 'HD 1'\n 30 2\n" + lines(WAVE / 1e4, FLUX, ERROR), wave_unit="um")
    np.testing.assert_allclose(star.wavelength, WAVE)
    assert "wavelength unit um as requested" in star.notes


def test_equal_wavelengths_are_kept_apart_by_less_than_a_billionth(read):
    (star,) = read(lines(np.repeat(WAVE, 2), np.repeat(FLUX, 2)))
    np.testing.assert_allclose(star.wavelength, np.repeat(WAVE, 2), rtol=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        lines(np.arange(N), FLUX),
        lines(np.arange(1, N + 1), FLUX),
        lines(FLUX),
        lines(np.linspace(-300, 300, N), FLUX),
        "velocity,flux\n" + lines(WAVE, FLUX, separator=","),
        "# v_lsr T\n" + lines(WAVE, FLUX),
        "# wavenumber (cm-1)  flux\n" + lines(WAVE, FLUX),
        "wavenumber,flux\n" + lines(WAVE, FLUX, separator=","),
        "mjd,flux,flux_err\n" + lines(11 * WAVE, FLUX, ERROR, separator=","),
        "pixel flux\n" + lines(WAVE, FLUX),
    ],
)
def test_text_without_wavelengths_is_refused(read, text):
    with pytest.raises(NoWavelengthError):
        read(text)


@pytest.mark.parametrize(
    "text", ["hello world\n", "{}\n", "5000 1\n", "wave,flux\n5000,1\n", "1 2\nx y\n3 4\n" * 50, "\n"]
)
def test_other_text_is_refused(read, text):
    with pytest.raises(ReadError):
        read(text)


def test_gzip_is_recognised_under_any_name(tmp_path):
    for name, data in (
        ("star.fits", image_bytes(FLUX.astype("f4"), {"CRVAL1": 5000.0, "CDELT1": 0.5})),
        ("star.txt", lines(WAVE, FLUX).encode()),
    ):
        (tmp_path / name).write_bytes(gzip.compress(data))
        np.testing.assert_allclose(read_spectra(tmp_path / name)[0].wavelength, WAVE)


def quantities():
    return Table([Column(WAVE / 10, "lam", unit="nm"), Column(FLUX, "a"), Column(ERROR, "b")], meta={"object": "HD 1"})


def test_ecsv_is_read_with_its_units(tmp_path):
    table = quantities()
    table.rename_columns(("a", "b"), ("flux", "flux_error"))
    table.write(tmp_path / "star.csv", format="ascii.ecsv")
    (star,) = read_spectra(tmp_path / "star.csv")
    np.testing.assert_allclose(star.wavelength, WAVE)
    np.testing.assert_allclose(star.sigma, ERROR)
    assert star.id == "HD 1"


def test_votable_columns_are_found_by_ucd_and_utype(tmp_path):
    votable = from_table(quantities())
    fields = votable.get_first_table().fields
    fields[0].ucd = "em.wl"
    fields[1].ucd = "phot.flux.density"
    fields[2].utype = "spec:Spectrum.Data.FluxAxis.Accuracy.StatError"
    votable.to_xml(str(tmp_path / "star.xml"))
    (star,) = read_spectra(tmp_path / "star.xml")
    np.testing.assert_allclose(star.wavelength, WAVE)
    np.testing.assert_allclose(star.sigma, ERROR)


def test_our_training_sets_are_read_row_by_row(tmp_path):
    path = tmp_path / "set.h5"
    with TrainingSetWriter(path, Grid(WAVE, "vacuum"), ["teff"], ["K"], 3, sigma=True, mask=True) as writer:
        mask = np.zeros((3, N), dtype="u1")
        mask[1, 4] = 1
        writer.append(np.tile(FLUX, (3, 1)), np.ones((3, 1)), [7, 8, 9], sigma=np.tile(ERROR, (3, 1)), mask=mask)
    spectra = read_spectra(path)
    assert [(spectrum.id, spectrum.medium, spectrum.bad.sum()) for spectrum in spectra] == [
        ("7", "vacuum", 0),
        ("8", "vacuum", 1),
        ("9", "vacuum", 0),
    ]
    np.testing.assert_allclose(spectra[2].sigma, ERROR, rtol=1e-6)


def test_frame_and_velocities_of_a_training_set_are_known_either_way(tmp_path):
    path, velocity = tmp_path / "set.h5", [12.5, np.nan, -3.0]
    for frame, known in (("rest", "rest"), ("nonsense", "unknown")):
        made = {"sigma": True, "aux": {"rv": "f8"}, "attrs": {"preparation": f'{{"frame": "{frame}"}}'}}
        with TrainingSetWriter(path, Grid(WAVE), ["teff"], ["K"], 3, **made) as writer:
            flux, error = np.stack([3e14 * FLUX, FLUX, FLUX]), np.stack([1e12 * FLUX, ERROR, ERROR])
            error[1:, 4] = 1e10
            writer.append(flux, np.ones((3, 1)), [7, 8, 9], sigma=error, aux={"rv": velocity})
        spectra, (block,) = read_spectra(path), read_blocks([Part(str(path))], ReadOptions())
        assert {block.setting.frame, *(spectrum.frame for spectrum in spectra)} == {known}
        assert [spectrum.radial_velocity for spectrum in spectra] == [12.5, None, -3.0]
        np.testing.assert_array_equal(block.radial_velocity, velocity)
        np.testing.assert_array_equal(block.sigma, [spectrum.sigma for spectrum in spectra])
        assert np.isnan(block.sigma).sum(axis=1).tolist() == [0, 1, 1]


@pytest.mark.parametrize(("name", "form"), [("a.vot", "votable"), ("a.ecsv", "ascii.ecsv")])
def test_large_numbers_of_stars_stay_exact_beside_missing_ones(tmp_path, name, form):
    ids = MaskedColumn([4611686018427387905, 0, 9007199254740993], mask=[False, True, False])
    Table({"source_id": ids, "wave": np.stack([WAVE] * 3), "flux": np.stack([FLUX] * 3)}).write(
        tmp_path / name, format=form
    )
    assert [star.id for star in read_spectra(tmp_path / name)] == ["4611686018427387905", "", "9007199254740993"]


def test_a_damaged_training_set_does_not_take_the_program_with_it(tmp_path):
    path = tmp_path / "set.h5"
    with TrainingSetWriter(path, Grid(WAVE, "vacuum"), ["teff"], ["K"], 1) as writer:
        writer.append(FLUX[None], [[5777.0]], [1])
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(1)
    for _ in range(3):
        damaged = data.copy()
        for at in generator.integers(100, 3000, size=20):
            damaged[at] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(damaged)
        with contextlib.suppress(AnnaError):
            read_spectra(path)


def test_another_hdf5_file_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ReadError, match="anna-trainingset"):
        read_spectra(tmp_path / "a.h5")


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_old_binary_files_are_read(tmp_path, order):
    stars = [[star, 5000.0, 4.5, 0.1, *(star * FLUX)] for star in (1.0, 2.0)]
    numbers = np.concatenate([[N, 2], WAVE, *stars]).astype(f"{order}f8")
    numbers.tofile(tmp_path / "old.bin")
    spectra = list(iter_spectra(tmp_path / "old.bin", ReadOptions(medium="air")))
    assert [(spectrum.id, spectrum.medium) for spectrum in spectra] == [("1", "air"), ("2", "air")]
    np.testing.assert_array_equal(spectra[1].flux, 2 * FLUX)
