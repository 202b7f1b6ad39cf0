"""Senders' names, codes and unit words for the fields that have a standard name here."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from schemas.contract import EVENT_TIME, PATIENT_ID
from schemas.units import known_code

# Each without case, blanks and punctuation. Codes are from LOINC and IEEE 11073 (MDC). The oxygen saturation of
# arterial blood (SaO2) is a different measurement from SpO2.
_NAMES: Final[dict[str, str]] = {
    PATIENT_ID: "patientid patientnumber patientno patient pid mrn subjectid subject personid",
    EVENT_TIME: "eventtime effectivedatetime measuredat measurementtime observedat observationtime recordedat "
    "charttime takenat taken timestamp datetime time ts at recorded sampletime",
    "heart_rate": "heartrate hr pulse pulserate heartbeat 88674 147842 149514 149530",
    "respiratory_rate": "respiratoryrate resprate resp rr respiration respirationrate respirations 92791 151562",
    "temperature": "temperature temp tmp bodytemperature bodytemp coretemperature 83105 150344 150364",
    "spo2": "spo2 o2sat oxygensaturation pulseoximetry 594085 27086 150456",
    "systolic_bp": "systolicbp systolic sbp sys bpsys bpsystolic nbps nibpsys 84806 150017 150021",
    "diastolic_bp": "diastolicbp diastolic dbp dia bpdia bpdiastolic nbpd nibpdia 84624 150018 150022",
    "mean_arterial_pressure": "meanarterialpressure map meanbp mbp bpmean nbpm nibpmean 84780 150019 150023",
    "age": "age ageyears patientage",
}
_KNOWN: Final = {word: name for name, words in _NAMES.items() for word in words.split()}
_RANK: Final = {word: rank for words in _NAMES.values() for rank, word in enumerate(words.split())}

PRESSURES: Final = frozenset({"bp", "bloodpressure", "nibp", "abp", "nbp"})
"""Names of fields that hold both pressures in a text such as 120/80."""
VALUES: Final = frozenset(
    {"value", "val", "v", "reading", "measurement", "result", "valuenumeric", "numericvalue"}
)
UNITS: Final = frozenset({"unit", "units", "uom", "ucum", "unitcode"})

_UNIT_WORDS: Final = {
    "bpm": "/min",
    "beatsperminute": "/min",
    "breathsperminute": "/min",
    "permin": "/min",
    "c": "Cel",
    "degc": "Cel",
    "celsius": "Cel",
    "f": "[degF]",
    "degf": "[degF]",
    "fahrenheit": "[degF]",
    "kelvin": "K",
    "percent": "%",
    "pct": "%",
    "mmhg": "mm[Hg]",
    "kpa": "kPa",
    "years": "a",
    "months": "mo",
    "days": "d",
}
_SYSTEMS: Final = ("loinc", "mdc")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class Known(NamedTuple):
    """What a name stands for, how sure that is (0 is best), and the unit it implies."""

    name: str
    rank: int
    unit: str | None = None


def fold(name: str) -> str:
    """Without case, blanks and punctuation."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def known(path: Sequence[str]) -> Known | None:
    """The meaning of a path, judged by its last name and the one before: `patient.id`, `temp_f`, `pulse.value`."""
    *above, last = path
    if above and fold(last) in VALUES:
        return known(above)
    if above and (found := _known(f"{above[-1]} {last}")) is not None:
        return found
    return _known(last)


def known_as(code: str) -> str | None:
    """The standard feature of a code or name of a reading."""
    word = fold(code)
    for system in _SYSTEMS:
        word = word.removeprefix(system)
    name = _KNOWN.get(word)
    return None if name in (PATIENT_ID, EVENT_TIME) else name


def unit_of(word: str) -> str | None:
    """The UCUM code that a sender's unit word most likely means."""
    return known_code(word) or _UNIT_WORDS.get(fold(word)) or ("/min" if fold(word) == "min" else None)


def _known(name: str) -> Known | None:
    if (word := fold(name)) in _KNOWN:
        return Known(_KNOWN[word], _RANK[word])
    *words, last = _WORDS.findall(name) or [""]
    word = fold("".join(words))
    if word in _KNOWN and (last.casefold() in ("s", "ms", "us") or last.casefold() in _UNIT_WORDS):
        return Known(_KNOWN[word], _RANK[word], _UNIT_WORDS.get(last.casefold()))
    return None
