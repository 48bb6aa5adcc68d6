"""What headers say about a spectrum beside its numbers: medium, frame, name, resolution, velocity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from anna_onnx.spectrum import FloatArray, Frame, Medium

SPEED_OF_LIGHT = 299792.458  # km/s


class Keywords(Protocol):
    """A header: the value of a keyword, or None."""

    def get(self, key: str) -> Any: ...

    def number(self, key: str) -> float | None: ...

    def text(self, key: str) -> str: ...


@dataclass(frozen=True)
class Facts:
    """What is known of a spectrum beside its numbers; the attributes are those of `Spectrum`."""

    medium: Medium = "unknown"
    frame: Frame = "unknown"
    id: str = ""
    notes: tuple[str, ...] = ()
    resolution: float | None = None
    radial_velocity: float | None = None

    def known(self, **changes: Any) -> Facts:
        """Return these facts with some replaced."""
        return replace(self, **changes)

    def noted(self, *notes: str) -> Facts:
        """Return these facts with further notes."""
        return replace(self, notes=(*self.notes, *notes))


# Instruments whose pipelines give wavelengths in a known medium, by INSTRUME.
_AIR = "HARPS HARPN HARPS-N SOPHIE CORALIE ELODIE UVES FEROS XSHOOTER GIRAFFE ESPADONS NARVAL"
_VACUUM = "CRIRES HPF MAGE STIS COS NIRSPEC NIRISS MIRI SPEX ISHELL SPIROU CARMENES IGRINS NEID"
_PIPELINES: Mapping[str, Medium] = {
    **dict.fromkeys(_AIR.split(), "air"),
    **dict.fromkeys(_VACUUM.split(), "vacuum"),
}
# ESO pipelines that leave the wavelengths as observed, in products that bear the recipe's name.
_TOPOCENTRIC = ("UVES", "XSHOOTER", "CRIRES")
_SYSTEMS: Mapping[str, Frame] = {
    "TOPOCENT": "topocentric",
    "GEOCENTR": "topocentric",
    "BARYCENT": "barycentric",
    "HELIOCEN": "barycentric",
    "SOURCE": "rest",
}
_RESOLUTION = ("SPEC_RES", "SPECRES", "RESOLUT", "SPEC_RP", "RESPOWER", "RP", "R_POWER")
_VELOCITY = ("ESO DRS CCF RV", "ESO QC CCF RV", "TNG DRS CCF RV", "VRAD", "RADVEL", "RV")
_NAME = ("ESO OBS TARG NAME", "OBJECT", "TARGNAME", "TARGETID", "TARGET", "OBJNAME", "DESIG", "OBSID")


def from_headers(*headers: Keywords) -> Facts:
    """Return what the headers state, the first header first."""
    facts = Facts(id=next((name for h in headers for key in _NAME if (name := h.text(key))), ""))
    facts = _medium(facts, headers)
    facts = _frame(facts, headers)
    return facts.known(
        resolution=_positive(headers, _RESOLUTION),
        radial_velocity=next(
            (v for h in headers for k in _VELOCITY if (v := _plausible(h.number(k))) is not None), None
        ),
    )


def _positive(headers: tuple[Keywords, ...], keys: tuple[str, ...]) -> float | None:
    return next((v for h in headers for key in keys if (v := h.number(key)) is not None and 10 < v < 1e7), None)


def _plausible(velocity: float | None) -> float | None:
    """Return a stellar velocity, or None for a fill value."""
    return velocity if velocity is not None and abs(velocity) < 2000 and velocity != 0 else None


def _medium(facts: Facts, headers: tuple[Keywords, ...]) -> Facts:
    for header in headers:
        vacuum = header.get("VACUUM")
        if isinstance(vacuum, bool):
            return facts.known(medium="vacuum" if vacuum else "air")
        for key in ("AIRORVAC", "AIRVAC", "VACAIR", "WAVETYPE", "MEDIUM", "WAVEMED"):
            if found := medium_in(header.text(key)):
                return facts.known(medium=found)
        if header.text("CTYPE1").upper().startswith("AWAV"):
            return facts.known(medium="air")
    for header in headers:
        instrument = (header.text("INSTRUME") or header.text("INSTR")).upper()
        if instrument in _PIPELINES:
            medium = _PIPELINES[instrument]
            return facts.known(medium=medium).noted(f"medium {medium}, the convention of {instrument} pipelines")
    if any(h.text("CTYPE1").upper().split("-")[0] == "WAVE" for h in headers):
        return facts.known(medium="vacuum").noted("medium vacuum, the meaning of CTYPE1 WAVE in the FITS standard")
    if any(h.text("TELESCOP").upper() == "HST" or h.text("DBTABLE") == "CRSPECTRUM" for h in headers):
        return facts.known(medium="vacuum").noted("medium vacuum, the convention of HST and CALSPEC spectra")
    return facts


def _frame(facts: Facts, headers: tuple[Keywords, ...]) -> Facts:
    for header in headers:
        for key in ("SPECSYS", "SPECSYS1", "ESO QC SPECSYS"):
            system = header.text(key).upper()[:8]
            if system in _SYSTEMS:
                return facts.known(frame=_SYSTEMS[system])
        if header.text("HELCORR").upper() in ("COMPLETE", "PERFORM") and header.text("TELESCOP").upper() == "HST":
            return facts.known(frame="barycentric").noted("heliocentric wavelengths (HELCORR)")
    if any(h.get("DOPCOR01") is not None or h.get("DOPCOR") is not None for h in headers):
        return facts.noted("doppler-corrected by IRAF dopcor: the frame is not told")
    for header in headers:
        instrument = header.text("INSTRUME").upper()
        if instrument in _TOPOCENTRIC and header.get("ESO PRO REC1 ID"):
            return facts.known(frame="topocentric").noted(f"frame topocentric, as the {instrument} pipeline leaves it")
    return facts


def medium_in(text: str) -> Medium | None:
    """Return the medium that a word or phrase names, or None."""
    words = text.lower()
    vacuum, air = "vac" in words, "air" in words and "pair" not in words
    if vacuum == air:
        return None
    return "vacuum" if vacuum else "air"


def iraf_medium(facts: Facts, wavelength: FloatArray) -> Facts:
    """Take optical wavelengths made by IRAF as air: its arc-line lists are.

    Near-infrared users often bring line lists in vacuum, so that beyond
    1 micron nothing is assumed.
    """
    if facts.medium != "unknown" or 0.5 * (wavelength[0] + wavelength[-1]) > 10000:
        return facts
    return facts.known(medium="air").noted("medium air, the convention of IRAF's optical line lists")
