"""What headers say about a spectrum beside its numbers: medium, frame, name, resolution, velocity."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any, NamedTuple, Protocol

from anna_onnx.arrays import FloatArray
from anna_onnx.spectrum import Frame, Medium


class Keywords(Protocol):
    """A header."""

    def stated(self, keys: Set[str]) -> dict[str, Any]:
        """Return the values of those of `keys` that the header has."""

    def remarks(self, *keys: str) -> Iterator[str]:
        """Return the comments of those of the cards `keys` that have one."""

    def prose(self) -> Iterator[str]:
        """Return the COMMENT and HISTORY lines."""


class Facts(NamedTuple):
    """What is known of a spectrum beside its numbers; the attributes are those of `Spectrum`."""

    medium: Medium = "unknown"
    frame: Frame = "unknown"
    id: str = ""
    notes: tuple[str, ...] = ()
    resolution: float | None = None
    radial_velocity: float | None = None
    nominal: tuple[str, float] | None = None  # the instrument, and the resolving power that its spectra have

    def known(self, **changes: Any) -> Facts:
        """Return these facts with some replaced."""
        return self._replace(**changes)

    def noted(self, *notes: str) -> Facts:
        """Return these facts with further notes."""
        return self._replace(notes=(*self.notes, *notes))

    def in_medium(self, medium: Medium) -> Facts:
        """Return these facts with the medium that the wavelengths themselves state, without notes on another."""
        return self._replace(medium=medium, notes=tuple(note for note in self.notes if not note.startswith("medium ")))


# Instruments whose pipelines give wavelengths in a known medium, by INSTRUME.
_AIR = "HARPS HARPN HARPS-N SOPHIE CORALIE ELODIE UVES FEROS XSHOOTER GIRAFFE ESPADONS NARVAL HERMES"
_VACUUM = "CRIRES HPF MAGE STIS COS NIRSPEC NIRISS MIRI SPEX ISHELL SPIROU CARMENES IGRINS NEID EXPRES"
_PIPELINES: Mapping[str, Medium] = {
    **dict.fromkeys(_AIR.split(), "air"),
    **dict.fromkeys(_VACUUM.split(), "vacuum"),
}
# Of these ESO has a pipeline, and others have their own: PROCSOFT names it, ESO's as uves/6.1.8.
_OF_ESO = ("UVES", "XSHOOTER", "GIRAFFE", "CRIRES")
_ESO_PIPELINE = re.compile(r"\w+/\d")
# Resolving powers of instruments, with the mode where they have several, for files that do not state theirs.
_NOMINAL: Mapping[str, float] = {
    **dict.fromkeys(("HARPS", "HARPN", "HARPS-N"), 115000.0),
    **{"HARPS EGGS": 80000.0, "FEROS": 48000.0, "CORALIE": 60000.0, "ELODIE": 42000.0},
    **{"ESPRESSO SINGLEHR": 140000.0, "ESPRESSO SINGLEUHR": 190000.0, "ESPRESSO MULTIMR": 72500.0},
    **{"ESPADONS": 65000.0, "NARVAL": 65000.0, "SPIROU": 70000.0, "CARMENES": 94600.0, "HPF": 55000.0},
    **{"EXPRES": 137000.0, "IGRINS": 45000.0},
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
_MEDIUM = ("AIRORVAC", "AIRVAC", "VACAIR", "WAVETYPE", "MEDIUM", "WAVEMED")
_RESOLUTION = ("SPEC_RES", "SPECRES", "RESOLUT", "SPEC_RP", "RESPOWER", "RP", "R_POWER", "SPE_RPOW", "BSS_ITRP")
_VELOCITY = ("ESO DRS CCF RV", "ESO QC CCF RV", "TNG DRS CCF RV", "VRAD", "RADVEL", "RV")
# Units in lower case without blanks and signs of multiplication: of velocities, and of what is neither one nor a ratio.
_KMS: Mapping[str, float] = {
    **dict.fromkeys(("km/s", "kms-1", "km/sec"), 1.0),
    **dict.fromkeys(("m/s", "ms-1", "m/sec"), 1e-3),
}
_LENGTHS = "a å aa ang angstrom angstroms ma nm um µm μm micron microns mm cm m pm nanometer nanometers"
_OTHER_UNITS = frozenset(f"{_LENGTHS} pix pixel pixels px channel channels cm-1 1/cm hz khz mhz ghz ev kev mag".split())
_BRACKET = re.compile(r"\[([^\]]*)\]")
_NAME = ("ESO OBS TARG NAME", "OBJECT", "TARGNAME", "TARGETID", "TARGET", "OBJNAME", "DESIG", "OBSID")
_MEDIUM_WORD = re.compile(r"(?:\b|_)(vac(?:uum)?|air)(?:\b|_)", re.I)
_OTHER_AIR = re.compile(
    r"\bair[\s_-]*(?:mass|pressure|temp|index|refract|humid|density)|(?:index|pressure|temperature) of (?:the )?air",
    re.I,
)
_CLAUSE = re.compile(r"[,;:()\[\]]|\.\s|\bbut\b", re.I)
_LEFT_OPEN = "medium left open by the comment"
_CONVERTED = re.compile(r"(?:air|vac(?:uum)?)\W*(?:to|2|->)\W*(vac(?:uum)?|air)", re.I)
_WAVELENGTH = re.compile(r"wavel|lambda|angstrom", re.I)
_ORIGIN = ("INSTRUME", "INSTR", "TELESCOP", "DBTABLE", "PYP_SPEC", "ESO PRO REC1 ID")
_MODE = "ESO INS MODE"
_BERV = ("ESO DRS BERV", "TNG DRS BERV", "OHP DRS BERV", "ESO QC BERV", "TNG QC BERV")
_AXIS = ("VACUUM", "CTYPE1", "CUNIT1", "SPECSYS", "SPECSYS1", "HELCORR", "DOPCOR01", "DOPCOR", "BSS_VHEL", "PROCSOFT")
_KEYS = frozenset((*_MEDIUM, *_RESOLUTION, *_VELOCITY, *_NAME, *_ORIGIN, _MODE, *_BERV, *_AXIS))


def from_headers(*headers: Keywords) -> Facts:
    """Return what the headers state, the first header first."""
    stated = [header.stated(_KEYS) for header in headers]
    medium, medium_note = _stated_medium(stated)
    if medium == "unknown":
        medium, medium_note = _remarked_medium(headers)
    if medium == "unknown" and not medium_note:
        medium, medium_note = _conventional_medium(stated)
    frame, frame_note = _frame(stated)
    return Facts(
        medium=medium,
        frame=frame,
        id=next((name for keys in stated for key in _NAME if (name := _text(keys, key))), ""),
        notes=tuple(note for note in (medium_note, frame_note) if note),
        resolution=_first(headers, stated, _RESOLUTION, {}, lambda value: 10 < value < 1e7),
        radial_velocity=_first(headers, stated, _VELOCITY, _KMS, lambda value: 0 < abs(value) < 2000),
        nominal=next((nominal for keys in stated if (nominal := _nominal(keys))), None),
    )


def _nominal(keys: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the instrument, with its mode where that counts, and its resolving power."""
    instrument = _text(keys, "INSTRUME").upper()
    names = (f"{instrument} {_text(keys, _MODE).upper()}", instrument)
    return next(((name, _NOMINAL[name]) for name in names if name in _NOMINAL), None)


def _text(keys: Mapping[str, Any], key: str) -> str:
    value = keys.get(key)
    return "" if value is None else str(value).strip()


def _first(
    headers: Sequence[Keywords],
    stated: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    units: Mapping[str, float],
    plausible: Callable[[float], bool],
) -> float | None:
    """Return the first number that is no fill value, nor in a unit of another kind."""
    for header, keys in zip(headers, stated, strict=True):
        for name in names:
            if (number := finite(keys.get(name))) is not None:
                number *= _unit(header, name, units)
                if plausible(number):
                    return number
    return None


def _unit(header: Keywords, name: str, units: Mapping[str, float]) -> float:
    """Return the unit that the comment of a card gives in brackets, NaN when it is of another kind, 1 without one.

    It should stand at the beginning (FITS Standard 4.0, 4.3.2), but many write it at the end, and other things in
    brackets.
    """
    bracket = next((found for remark in header.remarks(name) if (found := _BRACKET.search(remark))), None)
    unit = "" if bracket is None else re.sub(r"[\s.*^()]", "", bracket[1].lower())
    return units.get(unit, math.nan if unit in _OTHER_UNITS or unit in _KMS else 1.0)


def _stated_medium(stated: Sequence[Mapping[str, Any]]) -> tuple[Medium, str]:
    """Return the medium that a keyword states, and a note when it is one of the axis that need not."""
    for keys in stated:
        vacuum = keys.get("VACUUM")
        if isinstance(vacuum, bool):
            return ("vacuum" if vacuum else "air"), ""
        for key in _MEDIUM:
            if found := medium_in(_text(keys, key)):
                return found, ""
        if _text(keys, "CTYPE1")[:4].upper() == "AWAV":
            return "air", ""
        for key in ("CTYPE1", "CUNIT1"):
            if found := medium_in(_text(keys, key)):
                return found, f"medium {found}, from {key} '{_text(keys, key)}'"
    return "unknown", ""


def _remarked_medium(headers: Sequence[Keywords]) -> tuple[Medium, str]:
    """Return the medium that a comment in the header tells, with a note, also on one that leaves it open."""
    left_open = ""
    for header in headers:
        lines = (line for line in header.prose() if _WAVELENGTH.search(line))
        for remark in chain(header.remarks("CTYPE1", "CUNIT1", "CRVAL1", "TTYPE1"), lines):
            found = spoken_medium(remark)
            if found == "unknown":
                left_open = left_open or f"{_LEFT_OPEN} '{remark}'"
            elif found:
                return found, f"medium {found}, from the comment '{remark}'"
    return "unknown", left_open


def spoken_medium(remark: str) -> Medium | None:
    """Return the medium that a sentence tells, unknown if it leaves it open, or None if it speaks of none.

    It is left open by clauses that deny a medium, or tell both. The air above a telescope is none.
    """
    if not _MEDIUM_WORD.search(remark):
        return None
    clauses = [clause for clause in _CLAUSE.split(_OTHER_AIR.sub("", remark)) if _MEDIUM_WORD.search(clause)]
    if not clauses:
        return None
    told = {medium_in(clause) for clause in clauses if not _denies(clause)}
    return (told.pop() or "unknown") if len(told) == 1 else "unknown"


def _denies(clause: str) -> bool:
    """Return whether a clause that names a medium denies it: by a no or without before it, or a not anywhere."""
    words = re.findall("[a-z]+", clause.lower())
    named = max((i for i, word in enumerate(words) if word in ("air", "vac", "vacuum")), default=0)
    return "not" in words or not {"no", "without"}.isdisjoint(words[:named])


def _conventional_medium(stated: Sequence[Mapping[str, Any]]) -> tuple[Medium, str]:
    """Return the medium that is usual where the file comes from, with a note."""
    if any("PYP_SPEC" in keys for keys in stated):
        return "vacuum", "medium vacuum, the convention of PypeIt"
    for keys in stated:
        instrument = (_text(keys, "INSTRUME") or _text(keys, "INSTR")).upper()
        program = _text(keys, "PROCSOFT")
        if instrument in _OF_ESO and program and not _ESO_PIPELINE.match(program):
            return "unknown", ""
        if instrument in _PIPELINES:
            medium = _PIPELINES[instrument]
            return medium, f"medium {medium}, the convention of {instrument} pipelines"
    if any(_text(keys, "CTYPE1").upper() in ("WAVE", "WAVE-LOG") for keys in stated):
        return "vacuum", "medium vacuum, the meaning of CTYPE1 WAVE in the FITS standard"
    if any(_text(keys, "TELESCOP").upper() == "HST" or _text(keys, "DBTABLE") == "CRSPECTRUM" for keys in stated):
        return "vacuum", "medium vacuum, the convention of HST and CALSPEC spectra"
    return "unknown", ""


def _frame(stated: Sequence[Mapping[str, Any]]) -> tuple[Frame, str]:
    """Return the frame, and a note when it is not stated but known otherwise."""
    for keys in stated:
        for key in ("SPECSYS", "SPECSYS1"):
            system = _text(keys, key).upper()[:8]
            if system in _SYSTEMS:
                return _SYSTEMS[system], ""
        if _text(keys, "HELCORR").upper() in ("COMPLETE", "PERFORM") and _text(keys, "TELESCOP").upper() == "HST":
            return "barycentric", "heliocentric wavelengths (HELCORR)"
        if (correction := finite(keys.get("BSS_VHEL"))) is not None:  # of the data base BeSS
            done: Frame = "topocentric" if correction == 0 else "barycentric"
            return done, f"frame {done}: BSS_VHEL, the heliocentric correction that was made, is {correction:g} km/s"
    if any("DOPCOR01" in keys or "DOPCOR" in keys for keys in stated):
        return "unknown", "doppler-corrected by IRAF dopcor: the frame is not told"
    if any(key in keys for key in _BERV for keys in stated):
        return "barycentric", "frame barycentric, as the DRS of HARPS and its kin leaves merged spectra"
    for keys in stated:
        instrument = _text(keys, "INSTRUME").upper()
        if instrument in _TOPOCENTRIC and "ESO PRO REC1 ID" in keys:
            return "topocentric", f"frame topocentric, as the {instrument} pipeline leaves it"
    return "unknown", ""


def medium_in(text: str) -> Medium | None:
    """Return the medium that a word or phrase names, or None; of a conversion the outcome."""
    if not text or not _MEDIUM_WORD.search(text):
        return None
    converted = _CONVERTED.search(text)
    words = {word[0].lower() for word in ([converted[1]] if converted else _MEDIUM_WORD.findall(text))}
    if len(words) != 1:
        return None
    return "vacuum" if words == {"v"} else "air"


def finite(value: bool | int | float | str | None) -> float | None:
    """Return the value of a keyword as a finite number, or None."""
    if value is None or value is True or value is False:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def iraf_medium(facts: Facts, wavelength: FloatArray) -> Facts:
    """Take optical wavelengths made by IRAF as air: its arc-line lists are.

    Near-infrared users often bring line lists in vacuum, so that beyond
    1 micron nothing is assumed, nor where a comment leaves it open.
    """
    if any(note.startswith(_LEFT_OPEN) for note in facts.notes):
        return facts
    if facts.medium != "unknown" or 0.5 * (wavelength[0] + wavelength[-1]) > 10000:
        return facts
    return facts.known(medium="air").noted("medium air, the convention of IRAF's optical line lists")
