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
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray, Floats, IntArray
from anna_onnx.continuum import Normalization
from anna_onnx.errors import AnnaError
from anna_onnx.flags import Flag
from anna_onnx.gridding import Gridded, Gridder, Spectra, Treatment
from anna_onnx.medium import C_KMS
from anna_onnx.quality import continuum_level, off_continuum
from anna_onnx.quantity import number, shown
from anna_onnx.resampling import Grid, Way
from anna_onnx.spectrum import Frame, Medium, Spectrum
from anna_onnx.velocity import Measured, measure_rv

ROW_FLAGS = Flag.no_coverage | Flag.partial_coverage | Flag.bad_pixels | Flag.low_snr | Flag.not_normalized
"""Flags that differ from row to row."""


EARTH_MOTION = 30.0
"""Largest velocity between the topocentric and the barycentric frame, km/s."""

FASTEST_STAR = 3000.0
"""A radial velocity beyond this, km/s, is a mistake in a header."""

RESOLUTION_TOLERANCE = 0.05
"""Resolving powers that differ by less than this fraction are taken as equal."""

MANY_BAD_PIXELS = 0.02
"""Fraction of bad pixels above which `bad_pixels` is flagged, unless training had more missing."""

LEAST_COVERAGE = 0.2
"""Fraction of the least coverage of the training below which nothing is inferred: the errors that networks state grow
too slowly with what is missing. Those of the released model are 1.3 to 2.1 times too small there
(``benchmarks/reference_task.py``)."""

KNOWN_SNR_MARGIN, ESTIMATED_SNR_MARGIN = 0.9, 0.5
"""Fraction of the least S/N of the training below which `low_snr` is flagged: from errors, and from
an estimate, which takes narrow lines for noise."""


@dataclass(frozen=True)
class PrepareOptions:
    """What the user may ask for.

    Parameters
    ----------
    rv : None, float, 'header' or 'auto'
        Radial velocity of the star in the frame of the spectrum, km/s or a
        quantity of astropy, to be removed: a number for all spectra, the one
        that the file states, or measured by cross-correlation with the mean
        training spectrum or, where the network was trained over velocities,
        with what it expects of such a star.
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
        if self.rv is not None and not (isinstance(self.rv, str) and self.rv in ("header", "auto")):
            rv = number(self.rv, "km/s")
            if rv is None:
                raise AnnaError(f"radial velocity {shown(self.rv)}, needed a number in km/s, header or auto")
            if not abs(rv) <= FASTEST_STAR:
                raise AnnaError(f"radial velocity {rv} km/s, needed at most {FASTEST_STAR:g}")
            object.__setattr__(self, "rv", rv)
        if isinstance(self.normalize, np.bool_):
            object.__setattr__(self, "normalize", bool(self.normalize))
        if not (self.normalize is None or isinstance(self.normalize, (bool, Normalization))):
            raise AnnaError(f"normalize {shown(self.normalize)}, needed True, False, None or a Normalization")
        if self.resolution is not None:
            resolution = number(self.resolution)
            if resolution is None or not 1 < resolution < np.inf:
                raise AnnaError(f"resolving power {shown(self.resolution)}, needed wavelength / FWHM, such as 20000")
            object.__setattr__(self, "resolution", resolution)


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

    flux: Float32Array
    sigma: Float32Array | None
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

    flux: Float32Array
    sigma: Float32Array | None
    coverage: FloatArray
    snr: FloatArray
    flags: IntArray
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
        Fraction of the grid below which `partial_coverage` is flagged, and below a fifth
        of which `no_coverage` is; lower for a network trained with missing pixels.
    snr_range : (low, high), optional
        Signal-to-noise ratios, per pixel of the grid, of the training.
    interpolation : {'cubic', 'linear'}
        Between pixels; linear as in the old program for networks that were trained with it.
    unseen : tuple of (first, last)
        Pixels, counted from 0, that no training spectrum had: masked regions, bad columns, a gap between chips.
        They are missing to the network whatever a spectrum has there, and do not count in its coverage.

    Raises
    ------
    AnnaError
        If a value makes no sense.

    Notes
    -----
    Flag `frame_unknown` means that nothing tells the velocity between the spectrum and
    the training spectra: the frame of the spectrum is not known, or it is
    another than theirs and the velocity of the star was not given.
    A network trained over at least ±30 km/s, the motion of the Earth, has
    learned not to mind: there it is set only when the file states a velocity beyond
    those of the training, which is not removed.
    """

    grid: Grid
    resolution: float | None = None
    frame: Frame = "unknown"
    velocity_range: tuple[float, float] | None = None
    normalize: Normalization | None = None
    min_coverage: float = 0.99
    snr_range: tuple[float, float] | None = None
    interpolation: Way = "cubic"
    unseen: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.frame not in get_args(Frame):
            raise AnnaError(f"preparation: frame '{self.frame}', needed one of {', '.join(get_args(Frame))}")
        if self.resolution is not None and not 1 < self.resolution < np.inf:
            raise AnnaError(f"preparation: resolving power {self.resolution}, needed wavelength / FWHM")
        if self.interpolation not in get_args(Way):
            raise AnnaError(f"preparation: interpolation '{self.interpolation}', needed {' or '.join(get_args(Way))}")
        if not 0 <= self.min_coverage <= 1:
            raise AnnaError(f"preparation: min_coverage {self.min_coverage}, needed 0 to 1")
        if not all(0 <= first <= last < self.grid.n_pixel for first, last in self.unseen):
            raise AnnaError(f"preparation: unseen {self.unseen}, needed first and last of {self.grid.n_pixel} pixels")
        if not self.seen.any():
            raise AnnaError("preparation: no pixel is left that training had")
        for name in ("velocity_range", "snr_range"):
            limits = getattr(self, name)
            if limits is not None and not -np.inf < limits[0] <= limits[1] < np.inf:
                raise AnnaError(f"preparation: {name} {limits}, needed low and high, both finite")

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the grid as JSON can hold it."""
        return {
            "resolution": self.resolution,
            "frame": self.frame,
            "velocity_range": self.velocity_range,
            "normalize": None if self.normalize is None else self.normalize.to_dict(),
            "min_coverage": self.min_coverage,
            "snr_range": self.snr_range,
            "interpolation": self.interpolation,
            "unseen": self.unseen,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], grid: Grid) -> Preparation:
        """Return the preparation that `to_dict` wrote; keys of newer versions are left out.

        Raises
        ------
        AnnaError
            If a value is not of its kind.
        """
        try:
            recipe = values.get("normalize")
            resolution = values.get("resolution")
            return cls(
                grid=grid,
                resolution=None if resolution is None else float(resolution),
                frame=values.get("frame", "unknown"),
                velocity_range=_pair(values.get("velocity_range")),
                normalize=None if recipe is None else Normalization.from_dict(recipe),
                min_coverage=float(values.get("min_coverage", 0.99)),
                snr_range=_pair(values.get("snr_range")),
                interpolation=values.get("interpolation", "cubic"),
                unseen=tuple((int(first), int(last)) for first, last in values.get("unseen", ())),
            )
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise AnnaError(f"preparation: {error}") from error

    @property
    def tolerates_motion(self) -> bool:
        """Whether the network was trained over all velocities that the Earth's motion brings."""
        low, high = self.velocity_range or (0.0, 0.0)
        return low <= -EARTH_MOTION and high >= EARTH_MOTION

    @property
    def line_width(self) -> float:
        """FWHM of a line that is not resolved, km/s; three pixels where the resolving power is not known."""
        if self.resolution is not None:
            return C_KMS / self.resolution
        return float(3 * C_KMS * np.ptp(np.log(self.grid.wavelength)) / (self.grid.n_pixel - 1))

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
        measured: Measured | None = None,
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
        measured : Measured, optional
            The velocities for ``rv='auto'``, where they are measured otherwise.

        Returns
        -------
        PreparedBlock
            Where nothing had to be done, `flux` is the array that was given.

        Raises
        ------
        AnnaError
            If a velocity is to be measured, and `template` cannot serve.
        """
        options = options or PrepareOptions()
        spectra = Spectra(np.asarray(wavelength, dtype=np.float64), np.atleast_2d(flux), sigma, bad, medium)
        resolution = options.resolution or resolution
        if resolution is not None and not 1 < resolution < np.inf:
            resolution = None  # nonsense in a header
        if frame == "rest":
            radial_velocity = 0.0  # what a header then states has been removed already
        treatment = self._treatment(options, resolution)
        if options.rv == "auto" and measured is None:
            measured = self._measure(spectra, treatment, template)
        elif options.rv != "auto":
            measured = None
        rv = self._stated(radial_velocity, options, len(spectra.flux)) if measured is None else measured.rv
        rv_error = None if measured is None else measured.error
        gridded = self._gridder.bring(spectra, treatment, rv)
        left = self._velocity_left(radial_velocity, rv, len(spectra.flux))
        flags = self._flags(gridded, medium, frame, resolution, rv)
        flags[~np.isnan(left)] |= Flag.frame_unknown
        common = (*self._medium_note(medium), *self._resolution_note(resolution))
        motion = self._frame_note(frame)
        return PreparedBlock(
            flux=gridded.flux,
            sigma=gridded.sigma,
            coverage=gridded.coverage,
            snr=gridded.snr,
            flags=flags,
            rv=rv,
            notes=self._notes(gridded, flags, common, motion, rv, rv_error, left),
        )

    def _velocity_left(self, radial_velocity: ArrayLike | None, rv: FloatArray | None, n: int) -> FloatArray:
        """Return the velocities, stated and not removed, that the network was not trained to tolerate; else NaN."""
        # Where the Earth's motion counts, the frame is flagged already; stars that were not at rest may have any.
        if not self.tolerates_motion or self.frame != "rest" or radial_velocity is None or rv is not None:
            return np.full(n, np.nan)
        stated = np.broadcast_to(np.asarray(radial_velocity, dtype=np.float64), n)
        return np.where(self._tolerates(stated), np.nan, stated)

    def _tolerates(self, velocity: FloatArray | float) -> BoolArray:
        """Whether the network was trained with such velocities, or nothing is known of that."""
        low, high = self.velocity_range or (-np.inf, np.inf)
        return np.asarray(np.isnan(velocity) | ((velocity >= low) & (velocity <= high)))

    @cached_property
    def _gridder(self) -> Gridder:
        return Gridder(self.grid, self.interpolation, self.seen)

    @cached_property
    def seen(self) -> BoolArray:
        """Whether training had a pixel, shape (n_pixel,)."""
        seen = np.ones(self.grid.n_pixel, dtype=np.bool_)
        for first, last in self.unseen:
            seen[first : last + 1] = False
        return seen

    def _treatment(self, options: PrepareOptions, resolution: float | None) -> Treatment:
        recipe = options.normalize if isinstance(options.normalize, Normalization) else self.normalize
        if options.normalize is False:
            recipe = None
        elif options.normalize is True and recipe is None:
            recipe = Normalization()
        degrade = None
        if resolution is not None and self.resolution is not None and self._compare_resolution(resolution) > 0:
            degrade = (resolution, self.resolution)
        return Treatment(recipe, only_if_needed=options.normalize is None, degrade=degrade)

    def check_template(self, template: ArrayLike | None) -> None:
        """Refuse to measure velocities where the mean training spectrum does not tell them.

        Raises
        ------
        AnnaError
        """
        if template is None:
            raise AnnaError("no mean spectrum to measure velocities with; give a number or header")
        if self.tolerates_motion:
            raise AnnaError(
                f"velocities cannot be measured: {self._velocities} km/s, which blur the mean of its spectra;"
                " within these none need be removed, beyond them give a number or header"
            )

    def _measure(self, spectra: Spectra, treatment: Treatment, template: ArrayLike | None) -> Measured:
        """Return the velocities of spectra against the mean training spectrum."""
        self.check_template(template)
        assert template is not None
        flux = self._gridder.bring(spectra, treatment, None).flux
        pairs = np.array([measure_rv(row, template, self.grid) for row in flux])  # (spectrum, value and error)
        return Measured(pairs[:, 0], pairs[:, 1])

    def _stated(self, radial_velocity: ArrayLike | None, options: PrepareOptions, n: int) -> FloatArray | None:
        """Return the velocities to remove, shape (n,), NaN = none known; None when none are asked for."""
        if options.rv is None:
            return None
        given = radial_velocity if options.rv == "header" else options.rv
        known = np.nan if given is None else np.asarray(given, dtype=np.float64)
        rv = np.array(np.broadcast_to(known, n))
        rv[~(np.abs(rv) <= FASTEST_STAR)] = np.nan
        return rv

    def _flags(
        self, gridded: Gridded, medium: Medium, frame: Frame, resolution: float | None, rv: FloatArray | None
    ) -> IntArray:
        common = 0
        if self._compare_resolution(resolution) < 0:
            common |= Flag.low_resolution
        if medium == "unknown":
            common |= Flag.medium_unknown
        usable = (gridded.coverage > 0) & (gridded.coverage >= LEAST_COVERAGE * self.min_coverage)
        missing = max(MANY_BAD_PIXELS, 1 - self.min_coverage)
        found = (
            (Flag.no_coverage, ~usable),
            (Flag.partial_coverage, usable & (gridded.coverage < self.min_coverage)),
            (Flag.bad_pixels, gridded.n_bad > missing * gridded.n_covered),
            (Flag.low_snr, gridded.snr < self._snr_limit(gridded)),
            (Flag.frame_unknown, self._motion_unknown(frame) & (np.True_ if rv is None else np.isnan(rv))),
            (Flag.not_normalized, off_continuum(gridded.flux, gridded.snr)),
        )
        flags = np.full(len(gridded.flux), int(common), dtype=np.int64)
        for flag, rows in found:
            flags |= rows * np.int64(flag.value)
        return flags

    def _snr_limit(self, gridded: Gridded) -> float:
        if self.snr_range is None:
            return -np.inf
        return self.snr_range[0] * (ESTIMATED_SNR_MARGIN if gridded.sigma is None else KNOWN_SNR_MARGIN)

    def _compare_resolution(self, resolution: float | None) -> int:
        """Return -1, 0 or 1: lower than the training set's, equal or not known, higher."""
        if resolution is None or self.resolution is None:
            return 0
        ratio = resolution / self.resolution
        return int(ratio > 1 + RESOLUTION_TOLERANCE) - int(ratio < 1 - RESOLUTION_TOLERANCE)

    def _motion_unknown(self, frame: str) -> bool:
        """Whether a spectrum in this frame may be shifted against the training spectra by an unknown velocity."""
        if self.tolerates_motion or frame == "rest":
            return False
        return frame == "unknown" or (self.frame != "unknown" and frame != self.frame)

    def _notes(
        self,
        gridded: Gridded,
        flags: IntArray,
        common: tuple[str, ...],
        motion: tuple[str, ...],
        rv: FloatArray | None,
        rv_error: FloatArray | None,
        left: FloatArray,
    ) -> list[tuple[str, ...]]:
        """Say what was assumed and done; rows without anything of their own share one tuple."""
        notes = [common if rv is not None else (*common, *motion)] * len(flags)
        own = ((flags & ROW_FLAGS) != 0) | (gridded.normalized != 0) | np.isnan(gridded.snr)
        own |= (rv is not None) | ~np.isnan(left)
        for row in np.flatnonzero(own).tolist():
            lines = list(notes[row])
            if rv is not None:
                lines.append(self._velocity_note(rv[row], None if rv_error is None else rv_error[row]))
                lines += motion if np.isnan(rv[row]) else ()
            if not np.isnan(left[row]):
                lines.append(f"radial velocity {left[row]:.1f} km/s not removed (rv), {self._velocities}")
            notes[row] = (*lines, *self._row_notes(gridded, row, Flag(int(flags[row]))))
        return notes

    def _medium_note(self, medium: Medium) -> tuple[str, ...]:
        if medium == "unknown":
            return (f"medium not known, taken as {self.grid.medium}",)
        if medium != self.grid.medium:
            return (f"wavelengths converted from {medium} to {self.grid.medium} (Ciddor 1996)",)
        return ()

    def _resolution_note(self, resolution: float | None) -> tuple[str, ...]:
        if self.resolution is None:
            return ()
        if resolution is None:
            return (f"resolving power not known, taken as the model's {self.resolution:.0f}",)
        compared = self._compare_resolution(resolution)
        how = {1: "degraded to", -1: "below"}.get(compared)
        return (f"resolving power {resolution:.0f} {how} the model's {self.resolution:.0f}",) if how else ()

    def _frame_note(self, frame: str) -> tuple[str, ...]:
        if not self._motion_unknown(frame):
            return ()
        if frame == "unknown":
            return ("frame of the wavelengths not known",)
        trained = "at rest" if self.frame == "rest" else f"on {self.frame} ones"
        return (f"{frame} wavelengths, the model was trained {trained}: the star's velocity is needed (rv)",)

    def _velocity_note(self, rv: float, error: float | None) -> str:
        trained = f", {self._velocities}" if self.tolerates_motion else ""
        if np.isnan(rv):
            return (
                "no radial velocity known, none removed"
                if error is None
                else f"no radial velocity could be measured{trained}"
            )
        removed = f"radial velocity {rv:.1f}" if error is None else f"measured radial velocity {rv:.1f} ± {error:.1f}"
        return f"{removed} km/s removed{'' if self._tolerates(rv) else trained}"

    @property
    def _velocities(self) -> str:
        low, high = self.velocity_range or (0.0, 0.0)
        return f"the model was trained with {low:g} to {high:g}"

    def _row_notes(self, gridded: Gridded, row: int, flags: Flag) -> Iterator[str]:
        if gridded.normalized[row]:
            yield "continuum normalised" if gridded.normalized[row] > 0 else "no continuum found to divide by"
        coverage = gridded.coverage[row]
        if not coverage:
            yield f"no good pixel inside {self.grid}"
        elif flags & (Flag.no_coverage | Flag.partial_coverage):
            needed = f"the model needs {_percent(self.min_coverage)}"
            if flags & Flag.no_coverage:
                needed += f", and for any labels {_percent(LEAST_COVERAGE * self.min_coverage)}"
            # Rounded down, what is too little looks so.
            yield f"covers {_percent(np.floor(1000 * coverage) / 1000)} of {self.grid}, {needed}"
        if coverage and np.isnan(gridded.snr[row]):
            yield "S/N not known: too few good pixels to estimate it from"
        if flags & Flag.bad_pixels:
            yield f"{gridded.n_bad[row] / gridded.n_covered[row]:.1%} of the pixels are bad"
        if flags & Flag.low_snr and self.snr_range is not None:
            yield f"S/N {gridded.snr[row]:.0f}, trained with {self.snr_range[0]:g}-{self.snr_range[1]:g}"
        if flags & Flag.not_normalized:
            level, tilt = continuum_level(gridded.flux[row][None])
            change = f", changing by {tilt[0] / level[0]:.0%}" if level[0] > 0 and np.isfinite(tilt[0]) else ""
            yield f"continuum at {level[0]:.3g}{change}, needed 1"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}%"


def _pair(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    low, high = values
    return float(low), float(high)
