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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray, IntArray
from anna_onnx.continuum import Normalization
from anna_onnx.errors import AnnaError
from anna_onnx.flags import Flag
from anna_onnx.gridding import Gridded, Gridder, Spectra, Treatment
from anna_onnx.medium import C_KMS
from anna_onnx.quality import off_continuum
from anna_onnx.quantity import number, shown
from anna_onnx.remarks import remarks
from anna_onnx.resampling import Grid, InterpolationKind
from anna_onnx.smoothing import Smoothing
from anna_onnx.spectrum import Frame, Spectrum
from anna_onnx.velocity import Velocities, measure_rv

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


RadialVelocity = float | Literal["header", "auto"]


def parse_velocity(text: str) -> RadialVelocity:
    """Return what a text says for `PrepareOptions.rv`; ValueError if it is no number, nor one of the two words."""
    return cast(Literal["header", "auto"], text) if text in ("header", "auto") else float(text)


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

    rv: RadialVelocity | None = None
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
    smoothing : Smoothing
        The Gaussian that lowered their resolving power.
    """

    flux: Float32Array
    sigma: Float32Array | None
    coverage: FloatArray
    snr: FloatArray
    flags: IntArray
    rv: FloatArray | None
    notes: list[tuple[str, ...]]
    smoothing: Smoothing

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
    most_missing : float, optional
        Fraction of the pixels between the first and the last good one that training lost there at most; with more
        bad ones `bad_pixels` is flagged, with more missing ones `partial_coverage`. None, of older models: as
        outside of these.
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
    most_missing: float | None = None
    snr_range: tuple[float, float] | None = None
    interpolation: InterpolationKind = "cubic"
    unseen: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.frame not in get_args(Frame):
            raise AnnaError(f"preparation: frame '{self.frame}', needed one of {', '.join(get_args(Frame))}")
        if self.resolution is not None and not 1 < self.resolution < np.inf:
            raise AnnaError(f"preparation: resolving power {self.resolution}, needed wavelength / FWHM")
        if self.interpolation not in get_args(InterpolationKind):
            raise AnnaError(
                f"preparation: interpolation '{self.interpolation}', needed {' or '.join(get_args(InterpolationKind))}"
            )
        if not 0 <= self.min_coverage <= 1:
            raise AnnaError(f"preparation: min_coverage {self.min_coverage}, needed 0 to 1")
        if self.most_missing is not None and not 0 <= self.most_missing <= 1:
            raise AnnaError(f"preparation: most_missing {self.most_missing}, needed 0 to 1")
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
            "most_missing": self.most_missing,
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
                most_missing=None if (missing := values.get("most_missing")) is None else float(missing),
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
        sigma = None if spectrum.sigma is None else spectrum.sigma[None]
        rv = None if spectrum.radial_velocity is None else np.array([spectrum.radial_velocity])
        known = spectrum.medium, spectrum.frame, spectrum.resolution
        spectra = Spectra(spectrum.wavelength, spectrum.flux[None], sigma, spectrum.bad[None], *known, rv)
        return self.prepare_block(spectra, options, template=template)[0]

    def prepare_block(
        self,
        spectra: Spectra,
        options: PrepareOptions | None = None,
        *,
        template: ArrayLike | None = None,
        measured: Velocities | None = None,
    ) -> PreparedBlock:
        """Make network input of spectra that share their wavelengths.

        Parameters
        ----------
        spectra : Spectra
        options : PrepareOptions, optional
        template : array, shape (n_pixel,), optional
            Mean training spectrum, for ``rv='auto'``.
        measured : Velocities, optional
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
        spectra = _understood(spectra, options)
        treatment = self._treatment(options, spectra.resolution)
        if options.rv != "auto":
            measured = None
        elif measured is None:
            measured = self._measure(spectra, treatment, template)
        rv = _stated(spectra, options) if measured is None else measured.rv
        gridded = self._gridder.resample(spectra, treatment, rv)
        flags = self._flags(gridded, spectra, rv)
        return PreparedBlock(
            flux=gridded.flux,
            sigma=gridded.sigma,
            coverage=gridded.coverage,
            snr=gridded.snr,
            flags=flags,
            rv=rv,
            notes=remarks(self, spectra, gridded, flags, rv, None if measured is None else measured.error),
            smoothing=Smoothing.of(self.grid, treatment.degrade),
        )

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
        if resolution is not None and self.resolution is not None and self.compare_resolution(resolution) > 0:
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
                f"velocities cannot be measured: {self.trained_velocities} km/s, which blur the mean of its spectra;"
                " within these none need be removed, beyond them give a number or header"
            )

    def _measure(self, spectra: Spectra, treatment: Treatment, template: ArrayLike | None) -> Velocities:
        """Return the velocities of spectra against the mean training spectrum."""
        self.check_template(template)
        assert template is not None
        flux = self._gridder.resample(spectra, treatment, None).flux
        pairs = np.array([measure_rv(row, template, self.grid) for row in flux])  # (spectrum, value and error)
        return Velocities(pairs[:, 0], pairs[:, 1])

    def _flags(self, gridded: Gridded, spectra: Spectra, rv: FloatArray | None) -> IntArray:
        common = 0
        if self.compare_resolution(spectra.resolution) < 0:
            common |= Flag.low_resolution
        if spectra.medium == "unknown":
            common |= Flag.medium_unknown
        usable = (gridded.coverage > 0) & (gridded.coverage >= self.least_coverage)
        unmoved = np.True_ if rv is None else np.isnan(rv)
        found = (
            (Flag.no_coverage, ~usable),
            (Flag.partial_coverage, usable & (gridded.coverage < self.min_coverage)),
            (Flag.partial_coverage, usable & self.lacks_too_many(gridded)),
            (Flag.bad_pixels, gridded.n_bad > self.missing_limit * gridded.n_covered),
            (Flag.low_snr, gridded.snr < self._snr_limit(gridded)),
            (Flag.frame_unknown, self.is_motion_unknown(spectra.frame) & unmoved),
            (Flag.frame_unknown, ~np.isnan(self.velocity_left(spectra, rv))),
            (Flag.not_normalized, off_continuum(gridded.flux, gridded.snr)),
        )
        flags = np.full(len(spectra), int(common), dtype=np.int64)
        for flag, rows in found:
            flags |= rows * np.int64(flag.value)
        return flags

    def _snr_limit(self, gridded: Gridded) -> float:
        if self.snr_range is None:
            return -np.inf
        return self.snr_range[0] * (ESTIMATED_SNR_MARGIN if gridded.sigma is None else KNOWN_SNR_MARGIN)

    @property
    def least_coverage(self) -> float:
        """Fraction of the grid with good flux below which nothing is inferred."""
        return LEAST_COVERAGE * self.min_coverage

    @property
    def missing_limit(self) -> float:
        """Fraction of the pixels between good ones that may be bad or missing."""
        trained = 1 - self.min_coverage if self.most_missing is None else self.most_missing
        return max(MANY_BAD_PIXELS, trained)

    def lacks_too_many(self, gridded: Gridded) -> BoolArray:
        """Whether more pixels between good ones have no good flux than in training."""
        return np.asarray(gridded.n_missing > self.missing_limit * gridded.n_between)

    def compare_resolution(self, resolution: float | None) -> int:
        """Return -1, 0 or 1: lower than the training set's, equal or not known, higher."""
        if resolution is None or self.resolution is None:
            return 0
        ratio = resolution / self.resolution
        return int(ratio > 1 + RESOLUTION_TOLERANCE) - int(ratio < 1 - RESOLUTION_TOLERANCE)

    def is_motion_unknown(self, frame: Frame) -> bool:
        """Whether a spectrum in this frame may be shifted against the training spectra by an unknown velocity."""
        if self.tolerates_motion or frame == "rest":
            return False
        return frame == "unknown" or (self.frame != "unknown" and frame != self.frame)

    def velocity_left(self, spectra: Spectra, rv: FloatArray | None) -> FloatArray:
        """Return the velocities, stated and not removed, that the network was not trained to tolerate; else NaN."""
        stated = spectra.radial_velocity
        # Where the Earth's motion counts, the frame is flagged already; stars that were not at rest may have any.
        if not self.tolerates_motion or self.frame != "rest" or stated is None or rv is not None:
            return np.full(len(spectra), np.nan)
        return np.where(self.tolerates(stated), np.nan, stated)

    def tolerates(self, velocity: FloatArray | float) -> BoolArray:
        """Whether the network was trained with such velocities, or nothing is known of that."""
        low, high = self.velocity_range or (-np.inf, np.inf)
        return np.asarray(np.isnan(velocity) | ((velocity >= low) & (velocity <= high)))

    @property
    def trained_velocities(self) -> str:
        """The velocities of the training, as a message says them."""
        low, high = self.velocity_range or (0.0, 0.0)
        return f"the model was trained with {low:g} to {high:g}"


def _understood(spectra: Spectra, options: PrepareOptions) -> Spectra:
    """Return spectra with what the user says of them, and without what headers state in error."""
    resolution = options.resolution or spectra.resolution
    if resolution is not None and not 1 < resolution < np.inf:
        resolution = None
    # What a header then states has been removed already.
    rv = np.zeros(len(spectra)) if spectra.frame == "rest" else spectra.radial_velocity
    return replace(spectra, resolution=resolution, radial_velocity=rv)


def _stated(spectra: Spectra, options: PrepareOptions) -> FloatArray | None:
    """Return the velocities to remove, shape (n,), NaN = none known; None when none are asked for."""
    if options.rv is None:
        return None
    given = spectra.radial_velocity if options.rv == "header" else options.rv
    known = np.nan if given is None else np.asarray(given, dtype=np.float64)
    rv = np.array(np.broadcast_to(known, len(spectra)))
    rv[~(np.abs(rv) <= FASTEST_STAR)] = np.nan
    return rv


def _pair(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    low, high = values
    return float(low), float(high)
