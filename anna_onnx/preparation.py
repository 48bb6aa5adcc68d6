"""Preparation: the only way from a spectrum to network input, in training and in inference.

A spectrum goes through these steps, in this order:

1. medium: air <-> vacuum to that of the grid (`anna_onnx.medium`);
2. frame: to rest, when a radial velocity is given or measured;
3. continuum: divided by it, when asked for (`anna_onnx.continuum`);
4. resolution: degraded to the training set's when it is higher;
5. wavelengths: onto the grid (`anna_onnx.resampling`).

What cannot be known or mended becomes a flag and a note, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx.continuum import Normalization, fit_continuum
from anna_onnx.errors import AnnaError
from anna_onnx.flags import Flag
from anna_onnx.medium import convert, doppler
from anna_onnx.quality import continuum_level, estimate_snr, off_continuum
from anna_onnx.resampling import FWHM, Degrader, Floats, Grid, Resampler, pixel_width, resampler
from anna_onnx.spectrum import BoolArray, FloatArray, Frame, Medium, Spectrum
from anna_onnx.velocity import measure_rv

ROW_FLAGS = Flag.no_coverage | Flag.partial_coverage | Flag.bad_pixels | Flag.low_snr | Flag.not_normalized
"""Flags that differ from row to row."""

FloatImage = NDArray[np.float32]

EARTH_MOTION = 30.0
"""Largest velocity between the topocentric and the barycentric frame, km/s."""

FASTEST_STAR = 3000.0
"""A radial velocity beyond this, km/s, is a mistake in a header."""

RESOLUTION_TOLERANCE = 0.05
"""Resolving powers that differ by less than this fraction are taken as equal."""

MANY_BAD_PIXELS = 0.02
"""Fraction of bad pixels above which `bad_pixels` is flagged, unless training had more missing."""

KNOWN_SNR_MARGIN, ESTIMATED_SNR_MARGIN = 0.9, 0.5
"""Fraction of the least S/N of the training below which `low_snr` is flagged: from errors, and from
an estimate, which takes narrow lines for noise."""


@dataclass(frozen=True)
class PrepareOptions:
    """What the user may ask for.

    Parameters
    ----------
    rv : None, float, 'header' or 'auto'
        Radial velocity of the star in the frame of the spectrum, km/s, to be
        removed: a number, the one that the file states, or measured by
        cross-correlation with the mean training spectrum.
    normalize : None, bool or Normalization
        True: with the recipe of the model, or the default one. None: only
        if the training spectra were, and this one does not look normalised.
    resolution : float, optional
        Resolving power of the spectra, in place of the header's.

    Raises
    ------
    AnnaError
        If a value makes no sense.
    """

    rv: float | Literal["header", "auto"] | None = None
    normalize: bool | Normalization | None = None
    resolution: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rv, str) and self.rv not in ("header", "auto"):
            raise AnnaError(f"radial velocity '{self.rv}', needed a number in km/s, header or auto")
        if isinstance(self.rv, (int, float)) and not abs(self.rv) <= FASTEST_STAR:
            raise AnnaError(f"radial velocity {self.rv} km/s, needed at most {FASTEST_STAR:g}")
        if self.resolution is not None and not 1 < self.resolution < np.inf:
            raise AnnaError(f"resolving power {self.resolution}, needed wavelength / FWHM, such as 20000")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A spectrum as the network sees it.

    Attributes
    ----------
    flux : array of float32, shape (n_pixel,)
        NaN where the spectrum has no good pixel.
    sigma : array of float32, shape (n_pixel,), or None
    coverage : float
        Fraction of the grid with good flux.
    snr : float
        Signal-to-noise ratio per pixel of the grid, see `estimate_snr`; NaN
        when nothing is covered.
    flags : Flag
    rv : float or None
        Radial velocity that was removed, km/s.
    notes : tuple of str
        What was assumed and done, for a person to read.
    """

    flux: FloatImage
    sigma: FloatImage | None
    coverage: float
    snr: float
    flags: Flag
    rv: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PreparedBlock:
    """Any number of spectra as the network sees them; as `Prepared`, with one row a spectrum.

    Attributes
    ----------
    flux : array of float32, shape (n, n_pixel)
    sigma : array of float32, shape (n, n_pixel), or None
    coverage, snr : arrays of float64, shape (n,)
    flags : array of int64, shape (n,)
        Bits of `Flag`.
    rv : array of float64, shape (n,), or None
        NaN where none was removed.
    notes : list of tuple of str, length n
    """

    flux: FloatImage
    sigma: FloatImage | None
    coverage: FloatArray
    snr: FloatArray
    flags: NDArray[np.int64]
    rv: FloatArray | None
    notes: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, row: int) -> Prepared:
        return Prepared(
            flux=self.flux[row],
            sigma=None if self.sigma is None else self.sigma[row],
            coverage=float(self.coverage[row]),
            snr=float(self.snr[row]),
            flags=Flag(int(self.flags[row])),
            rv=None if self.rv is None or np.isnan(self.rv[row]) else float(self.rv[row]),
            notes=self.notes[row],
        )


@dataclass(frozen=True)
class Preparation:
    """What the training spectra were like, and so what a spectrum must be made like.

    Parameters
    ----------
    grid : Grid, shape (n_pixel,)
    resolution : float, optional
        Resolving power of the training spectra.
    frame : {'topocentric', 'barycentric', 'rest', 'unknown'}
        Frame of the training spectra before any augmentation.
    velocity_range : (low, high), optional
        Radial velocities, km/s, that the network was trained to tolerate.
    normalize : Normalization, optional
        How the continuum of the training spectra was found; None when they
        came normalised.
    min_coverage : float
        Fraction of the grid below which `partial_coverage` is flagged;
        lower for a network trained with missing pixels.
    snr_range : (low, high), optional
        Signal-to-noise ratios, per pixel of the grid, of the training.

    Notes
    -----
    Flag `frame_unknown` means that nothing tells the velocity between the
    spectrum and the training spectra: the frame of the spectrum is not known, or the
    network was trained at rest and the star moves with a velocity that was not given.
    A network trained over at least ±30 km/s, the motion of the Earth, has
    learned not to mind: there it is never set.
    """

    grid: Grid
    resolution: float | None = None
    frame: Frame = "unknown"
    velocity_range: tuple[float, float] | None = None
    normalize: Normalization | None = None
    min_coverage: float = 0.99
    snr_range: tuple[float, float] | None = None
    _roads: list[_Road] = field(default_factory=list, init=False, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the grid as JSON can hold it."""
        return {
            "resolution": self.resolution,
            "frame": self.frame,
            "velocity_range": self.velocity_range,
            "normalize": None if self.normalize is None else self.normalize.to_dict(),
            "min_coverage": self.min_coverage,
            "snr_range": self.snr_range,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], grid: Grid) -> Preparation:
        """Return the preparation that `to_dict` wrote; keys of newer versions are left out."""
        recipe = values.get("normalize")
        return cls(
            grid=grid,
            resolution=values.get("resolution"),
            frame=values.get("frame", "unknown"),
            velocity_range=_pair(values.get("velocity_range")),
            normalize=None if recipe is None else Normalization.from_dict(recipe),
            min_coverage=values.get("min_coverage", 0.99),
            snr_range=_pair(values.get("snr_range")),
        )

    @property
    def tolerates_motion(self) -> bool:
        """Whether the network was trained over all velocities that the Earth's motion brings."""
        low, high = self.velocity_range or (0.0, 0.0)
        return low <= -EARTH_MOTION and high >= EARTH_MOTION

    def prepare(
        self, spectrum: Spectrum, options: PrepareOptions | None = None, *, template: ArrayLike | None = None
    ) -> Prepared:
        """Make network input of one spectrum; see `prepare_block`."""
        block = self.prepare_block(
            spectrum.wavelength,
            spectrum.flux[None],
            None if spectrum.sigma is None else spectrum.sigma[None],
            spectrum.bad[None],
            medium=spectrum.medium,
            frame=spectrum.frame,
            resolution=spectrum.resolution,
            radial_velocity=spectrum.radial_velocity,
            options=options,
            template=template,
        )
        return block[0]

    def prepare_block(
        self,
        wavelength: FloatArray,
        flux: Floats,
        sigma: Floats | None = None,
        bad: BoolArray | None = None,
        *,
        medium: Medium = "unknown",
        frame: Frame = "unknown",
        resolution: float | None = None,
        radial_velocity: ArrayLike | None = None,
        options: PrepareOptions | None = None,
        template: ArrayLike | None = None,
    ) -> PreparedBlock:
        """Make network input of spectra that share their wavelengths.

        Parameters
        ----------
        wavelength : array of float64, shape (n_in,)
            Angstrom, strictly ascending, in `medium` and `frame`.
        flux : array of float32 or float64, shape (n, n_in)
            Pixels that are not finite are bad.
        sigma : array, shape (n, n_in), optional
            Standard deviation; pixels where it is not finite and positive are bad.
        bad : array of bool, shape (n, n_in), optional
            True where the flux must not be used.
        medium, frame : str
        resolution : float, optional
            Resolving power of the spectra.
        radial_velocity : float or array, shape (n,), optional
            Of the stars in `frame`, km/s, NaN = not known; used on request.
        options : PrepareOptions, optional
        template : array, shape (n_pixel,), optional
            Mean training spectrum, for ``rv='auto'``.

        Returns
        -------
        PreparedBlock
        """
        options = options or PrepareOptions()
        spectra = _Spectra(np.asarray(wavelength, dtype=np.float64), np.atleast_2d(flux), sigma, bad)
        setting = _Setting(
            medium=medium,
            frame=frame,
            resolution=options.resolution or resolution,
            recipe=self._recipe(options),
            only_if_needed=options.normalize is None,
        )
        rv, measured = self._velocity(spectra, setting, radial_velocity, options, template)
        on_grid = self._onto_grid(spectra, setting, rv)
        flags = self._flags(on_grid, setting, rv)
        return PreparedBlock(
            flux=on_grid.flux.astype(np.float32, copy=False),
            sigma=None if on_grid.sigma is None else on_grid.sigma.astype(np.float32, copy=False),
            coverage=on_grid.coverage,
            snr=on_grid.snr,
            flags=flags,
            rv=rv,
            notes=self._notes(on_grid, setting, rv, measured, flags),
        )

    def _recipe(self, options: PrepareOptions) -> Normalization | None:
        """Return the recipe to normalise with, if any."""
        if isinstance(options.normalize, Normalization):
            return options.normalize
        if options.normalize:
            return self.normalize or Normalization()
        return None if options.normalize is False else self.normalize

    def _velocity(
        self,
        spectra: _Spectra,
        setting: _Setting,
        radial_velocity: ArrayLike | None,
        options: PrepareOptions,
        template: ArrayLike | None,
    ) -> tuple[FloatArray | None, FloatArray | None]:
        """Return the velocities to remove, NaN = none known, and the errors of measured ones."""
        n = len(spectra.flux)
        if options.rv is None:
            return None, None
        if options.rv == "auto":
            if template is None:
                raise AnnaError("rv='auto' needs the mean training spectrum to compare with, and this model has none")
            flux = self._onto_grid(spectra, setting, None).flux
            pairs = np.array([measure_rv(row, template, self.grid) for row in flux])  # (spectrum, value and error)
            return pairs[:, 0], pairs[:, 1]
        given = radial_velocity if options.rv == "header" else options.rv
        rv = np.array(np.broadcast_to(np.nan if given is None else np.asarray(given, dtype=np.float64), n))
        rv[~(np.abs(rv) <= FASTEST_STAR)] = np.nan
        return rv, None

    def _onto_grid(self, spectra: _Spectra, setting: _Setting, rv: FloatArray | None) -> _OnGrid:
        if rv is None:
            return self._along(self._road(spectra.wavelength, setting, 0.0), spectra, setting)
        velocity = np.nan_to_num(rv)
        parts, order = [], []
        for value in np.unique(velocity):
            rows = np.flatnonzero(velocity == value)
            parts.append(self._along(self._road(spectra.wavelength, setting, value), spectra.take(rows), setting))
            order.append(rows)
        return _OnGrid.join(parts, np.concatenate(order))

    def _road(self, wavelength: FloatArray, setting: _Setting, velocity: float) -> _Road:
        """Return the way for these wavelengths, the last ones from memory: files of one night share theirs."""
        higher = self._compare_resolution(setting.resolution) > 0
        degrade = (float(setting.resolution or 0), float(self.resolution or 0)) if higher else None
        key = (setting.medium, velocity, degrade)
        for road in self._roads:
            if road.key == key and (road.source is wavelength or np.array_equal(road.source, wavelength)):
                return road
        road = _Road(wavelength, self.grid, *key)
        self._roads[:] = [road, *self._roads[:1]]
        return road

    def _along(self, road: _Road, spectra: _Spectra, setting: _Setting) -> _OnGrid:
        """Take spectra along a road."""
        shape = (len(spectra.flux), self.grid.n_pixel)
        if road.resampler is None:
            nothing = np.zeros(shape, dtype=np.bool_)
            return _OnGrid(
                flux=np.full(shape, np.nan, dtype=np.float32),
                sigma=None if spectra.sigma is None else np.full(shape, np.nan, dtype=np.float32),
                valid=nothing,
                covers=nothing,
                snr=np.full(shape[0], np.nan),
                normalized=np.zeros(shape[0], dtype=np.int8),
            )
        flux, sigma, bad = spectra.cut(road.columns)
        snr = estimate_snr(flux, sigma, bad) * road.gain
        normalized = np.zeros(shape[0], dtype=np.int8)
        if setting.recipe is not None:
            flux, sigma, bad, normalized = _normalize(road.wavelength, flux, sigma, bad, setting)
        if road.degrader is not None:
            flux, sigma, valid = road.degrader.apply(flux, sigma, bad)
            bad = ~valid
        flux, sigma, valid = road.resampler.apply(flux, sigma, bad)
        return _OnGrid(flux, sigma, valid, np.broadcast_to(road.resampler.covers, shape), snr, normalized)

    def _flags(self, on_grid: _OnGrid, setting: _Setting, rv: FloatArray | None) -> NDArray[np.int64]:
        covered = on_grid.covers.sum(axis=1)
        n_bad = covered - on_grid.valid.sum(axis=1)
        seen = on_grid.coverage > 0
        found = {
            Flag.no_coverage: ~seen,
            Flag.partial_coverage: seen & (on_grid.coverage < self.min_coverage),
            Flag.bad_pixels: n_bad > max(MANY_BAD_PIXELS, 1 - self.min_coverage) * covered,
            Flag.low_snr: on_grid.snr < self._snr_limit(on_grid),
            Flag.low_resolution: self._compare_resolution(setting.resolution) < 0,
            Flag.medium_unknown: setting.medium == "unknown",
            Flag.frame_unknown: self._motion_unknown(setting.frame) and (rv is None or np.isnan(rv)),
            Flag.not_normalized: off_continuum(*continuum_level(on_grid.flux)),
        }
        flags = np.zeros(len(on_grid.flux), dtype=np.int64)
        for flag, rows in found.items():
            flags |= np.where(rows, int(flag), 0)
        return flags

    def _snr_limit(self, on_grid: _OnGrid) -> float:
        if self.snr_range is None:
            return -np.inf
        return self.snr_range[0] * (ESTIMATED_SNR_MARGIN if on_grid.sigma is None else KNOWN_SNR_MARGIN)

    def _compare_resolution(self, resolution: float | None) -> int:
        """Return -1, 0 or 1: lower than the training set's, equal or not known, higher."""
        if resolution is None or self.resolution is None:
            return 0
        ratio = resolution / self.resolution
        return int(ratio > 1 + RESOLUTION_TOLERANCE) - int(ratio < 1 - RESOLUTION_TOLERANCE)

    def _motion_unknown(self, frame: str) -> bool:
        """Whether a spectrum in this frame may be shifted against the training spectra by an unknown velocity."""
        if self.tolerates_motion:
            return False
        return frame == "unknown" or (self.frame == "rest" and frame != "rest")

    def _notes(
        self,
        on_grid: _OnGrid,
        setting: _Setting,
        rv: FloatArray | None,
        rv_error: FloatArray | None,
        flags: NDArray[np.int64],
    ) -> list[tuple[str, ...]]:
        """Say what was assumed and done; rows without anything of their own share one tuple."""
        common = tuple(self._common_notes(setting))
        frame = self._frame_note(setting.frame)
        notes = [common if rv is not None else (*common, *frame)] * len(flags)
        worth = (flags & ROW_FLAGS != 0) | (on_grid.normalized != 0)
        for row in range(len(flags)) if rv is not None else np.flatnonzero(worth):
            lines = list(notes[row])
            if rv is not None:
                lines.append(_velocity_note(rv[row], None if rv_error is None else rv_error[row]))
                lines += frame if np.isnan(rv[row]) else ()
            notes[row] = (*lines, *self._row_notes(on_grid, int(row), Flag(int(flags[row]))))
        return notes

    def _common_notes(self, setting: _Setting) -> Iterator[str]:
        model = self.grid.medium
        if setting.medium == "unknown":
            yield f"medium not known, taken as {model}"
        elif setting.medium != model:
            yield f"wavelengths converted from {setting.medium} to {model} (Ciddor 1996)"
        if self.resolution is not None:
            if setting.resolution is None:
                yield f"resolving power not known, taken as the model's {self.resolution:.0f}"
            elif compared := self._compare_resolution(setting.resolution):
                how = "degraded to" if compared > 0 else "below"
                yield f"resolving power {setting.resolution:.0f} {how} the model's {self.resolution:.0f}"

    def _frame_note(self, frame: str) -> tuple[str, ...]:
        if not self._motion_unknown(frame):
            return ()
        if frame == "unknown":
            return ("frame of the wavelengths not known",)
        return (f"{frame} wavelengths, the model was trained at rest: the star's velocity is needed (rv)",)

    def _row_notes(self, on_grid: _OnGrid, row: int, flags: Flag) -> Iterator[str]:
        if on_grid.normalized[row]:
            yield "continuum normalised" if on_grid.normalized[row] > 0 else "no continuum found to divide by"
        if flags & Flag.no_coverage:
            yield f"no good pixel inside {self.grid}"
        if flags & Flag.partial_coverage:
            yield f"covers {on_grid.coverage[row]:.1%} of {self.grid}, the model needs {self.min_coverage:.0%}"
        if flags & Flag.bad_pixels:
            yield f"{1 - on_grid.valid[row].sum() / on_grid.covers[row].sum():.1%} of the pixels are bad"
        if flags & Flag.low_snr and self.snr_range is not None:
            yield f"S/N {on_grid.snr[row]:.0f}, trained with {self.snr_range[0]:g}-{self.snr_range[1]:g}"
        if flags & Flag.not_normalized:
            level, tilt = continuum_level(on_grid.flux[row][None])
            yield f"continuum at {level[0]:.3g}, changing by {tilt[0]:.0%}, needed 1"


def _normalize(
    wavelength: FloatArray, flux: Floats, sigma: Floats | None, bad: BoolArray | None, setting: _Setting
) -> tuple[Floats, Floats | None, BoolArray, NDArray[np.int8]]:
    """Divide spectra by their continuum; the last array is 1 where that was done, -1 where none was found."""
    assert setting.recipe is not None
    bad = np.zeros(flux.shape, dtype=np.bool_) if bad is None else bad
    done = np.ones(len(flux), dtype=np.int8)
    if setting.only_if_needed:
        done[~off_continuum(*continuum_level(np.where(bad, np.nan, flux)))] = 0
    continuum = np.ones(flux.shape)
    for row in np.flatnonzero(done):
        fitted = fit_continuum(wavelength, flux[row].astype(np.float64), ~bad[row], setting.recipe)
        if np.isfinite(fitted).any():
            continuum[row] = fitted
        else:
            done[row] = -1
    sigma = None if sigma is None else sigma / continuum
    return flux / continuum, sigma, bad | np.isnan(continuum), done


def _velocity_note(rv: float, error: float | None) -> str:
    if np.isnan(rv):
        return "no radial velocity known, none removed" if error is None else "no radial velocity could be measured"
    measured = "" if error is None else f" ± {error:.1f}, measured by cross-correlation,"
    return f"radial velocity {rv:.1f}{measured} km/s removed"


def _pair(values: Any) -> tuple[float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]))


@dataclass(frozen=True, eq=False)
class _Setting:
    """What holds for all spectra of a block."""

    medium: Medium
    frame: Frame
    resolution: float | None
    recipe: Normalization | None
    only_if_needed: bool


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Spectra that share their wavelengths, as they came."""

    wavelength: FloatArray
    flux: Floats
    sigma: Floats | None
    bad: BoolArray | None

    def take(self, rows: NDArray[np.intp]) -> _Spectra:
        if rows.size == len(self.flux):
            return self
        sigma, bad = (None if part is None else part[rows] for part in (self.sigma, self.bad))
        return _Spectra(self.wavelength, self.flux[rows], sigma, bad)  # type: ignore[arg-type]

    def cut(self, columns: slice) -> tuple[Floats, Floats | None, BoolArray | None]:
        """Return flux, sigma and bad pixels of a range of pixels; None when no pixel is bad."""
        flux = self.flux[:, columns]
        sigma = None if self.sigma is None else self.sigma[:, columns]
        good = np.isfinite(flux)
        if sigma is not None:
            good &= np.isfinite(sigma) & (sigma > 0)
        if self.bad is not None:
            good &= ~self.bad[:, columns]
        return flux, sigma, None if good.all() else ~good


@dataclass(frozen=True, eq=False)
class _OnGrid:
    """Spectra on the grid, and what became known on the way."""

    flux: Floats
    sigma: Floats | None
    valid: BoolArray
    covers: BoolArray
    snr: FloatArray
    normalized: NDArray[np.int8]

    @property
    def coverage(self) -> FloatArray:
        return np.asarray(self.valid.mean(axis=1))

    @classmethod
    def join(cls, parts: list[_OnGrid], rows: NDArray[np.intp]) -> _OnGrid:
        """Put parts together, `rows` being the places of their rows."""
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(rows)
        sigma = [part.sigma for part in parts if part.sigma is not None]
        return cls(
            flux=np.concatenate([part.flux for part in parts])[order],
            sigma=np.concatenate(sigma)[order] if sigma else None,
            valid=np.concatenate([part.valid for part in parts])[order],
            covers=np.concatenate([part.covers for part in parts])[order],
            snr=np.concatenate([part.snr for part in parts])[order],
            normalized=np.concatenate([part.normalized for part in parts])[order],
        )


class _Road:
    """The way from a wavelength vector to the grid, worked out once for all spectra that share it.

    Parameters
    ----------
    source : array of float64, shape (n_in,)
        Wavelengths of the input.
    grid : Grid
    medium : str
        Of the input.
    velocity : float
        To remove, km/s.
    degrade : (from, to), optional
        Resolving powers.

    Attributes
    ----------
    columns : slice
        Pixels of the input that matter.
    wavelength : array of float64
        Theirs, in the medium of the grid and with the velocity removed.
    resampler : Resampler or None
        None when input and grid share no wavelengths.
    degrader : Degrader or None
    gain : float
        Signal-to-noise ratio per pixel of the grid over that per pixel of the input.
    """

    resampler: Resampler | None = None
    degrader: Degrader | None = None

    def __init__(
        self, source: FloatArray, grid: Grid, medium: Medium, velocity: float, degrade: tuple[float, float] | None
    ) -> None:
        self.source, self.key = source, (medium, velocity, degrade)
        wavelength = convert(source, medium, grid.medium)
        if velocity:
            wavelength = wavelength / doppler(velocity)
        first, last = grid.wavelength[[0, -1]]
        if last < wavelength[0] or first > wavelength[-1]:
            return
        # Four standard deviations of the Gaussian, and a few pixels to interpolate between.
        margin = 0.0 if degrade is None else 4 * np.sqrt(degrade[1] ** -2 - degrade[0] ** -2) / FWHM
        low, high = np.searchsorted(wavelength, [first * (1 - margin), last * (1 + margin)])
        self.columns = slice(max(int(low) - 3, 0), int(high) + 3)
        self.wavelength = wavelength[self.columns]
        self.gain = np.sqrt(max(1.0, pixel_width(grid.wavelength, first, last) / pixel_width(wavelength, first, last)))
        if degrade is not None:
            self.degrader = Degrader(self.wavelength, *degrade)
        onto = self.wavelength if self.degrader is None else self.degrader.wavelength
        self.resampler = resampler(onto, grid.wavelength)
