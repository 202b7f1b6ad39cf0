"""The names, limits and rules of the messages, each defined once.

`vitals.py` decodes by them and `vitals_schema` publishes them, so code and schema cannot drift apart.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

PATIENT_ID: Final = "patient_id"
EVENT_TIME: Final = "event_time"
ENCOUNTER_ID: Final = "encounter_id"

RISK_PROBABILITY: Final = "risk_probability"
RISK_LABEL: Final = "risk_label"
IMPLAUSIBLE: Final = "implausible"
THRESHOLD: Final = "threshold"
MODEL: Final = "model"
MAPPING: Final = "mapping"
SCORED_AT: Final = "scored_at"
SOURCE_TOPIC: Final = "source_topic"
SOURCE_PARTITION: Final = "source_partition"
SOURCE_OFFSET: Final = "source_offset"
FEATURES_PRESENT: Final = "features_present"
NO_INPUT: Final = "no_input"
HISTORY: Final = "history"

MAX_PATIENT_ID: Final = 128
"""The longest patient ID, in Unicode code points."""

MAX_MESSAGE_BYTES: Final = 262_144
"""The longest value that is parsed."""


BOOLEAN: Final = "boolean"
CATEGORY: Final = "category"
"""The kinds of features that are not numbers: true or false, or text."""

Dtypes = Mapping[str, str]
"""BOOLEAN or CATEGORY by name, for the features that are not numbers."""
Categories = Mapping[str, Sequence[str]]
"""By category feature, the values that the model knows."""

ALL_NUMBERS: Final[Dtypes] = MappingProxyType({})
NO_CATEGORIES: Final[Categories] = MappingProxyType({})


class Wanted(Protocol):
    """What decoding needs to know about a model: its features in order."""

    @property
    def features(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def dtypes(self) -> Dtypes:
        """The types of the features that are not numbers."""


class Feature(NamedTuple):
    """A vital sign: its unit and a typical value, for the schema's example."""

    unit: str
    typical: float


FEATURES: Final[dict[str, Feature]] = {
    "heart_rate": Feature("/min", 84),
    "respiratory_rate": Feature("/min", 17),
    "temperature": Feature("°C", 36.9),
    "spo2": Feature("%", 96),
    "systolic_bp": Feature("mmHg", 118),
    "diastolic_bp": Feature("mmHg", 64),
    "mean_arterial_pressure": Feature("mmHg", 82),
    "age": Feature("years", 67),
}
"""The vital signs that replay and simulator send. A model may use any others."""

STANDARD_FEATURES: Final[tuple[str, ...]] = tuple(FEATURES)


class Reason(StrEnum):
    """Why a message became a dead letter."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_TIME = "bad_time"
    MODEL_REJECTED = "model_rejected"
    NOT_DECODABLE = "not_decodable"
    UNKNOWN_SCHEMA = "unknown_schema"
    UNKNOWN_UNIT = "unknown_unit"
    CONFLICTING = "conflicting"
    RETRACTED = "retracted"
    NOT_FOR_US = "not_for_us"


NO_FAULT: Final = frozenset({Reason.RETRACTED, Reason.NOT_FOR_US})
"""Reasons that are not a message's fault."""


Problem = tuple[Reason, str]
"""Why a message is left out, and the field concerned ('' if no single one is)."""


class RefusedError(Exception):
    """A message is rejected; its reader catches this."""

    def __init__(self, reason: Reason, field: str = "") -> None:
        self.problem: Problem = reason, field


_DATE = (
    "(?:[0-9]{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    "|(?:0[13-9]|1[0-2])-(?:29|30)"
    "|(?:0[13578]|1[02])-31)"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:[.][0-9]+)?"
_ZONE = "(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

TIMESTAMP: Final = f"{_DATE}[Tt]{_TIME}{_ZONE}"
RFC3339: Final = f"^{TIMESTAMP}$(?!\\n)"
"""RFC 3339 with a zone, by its grammar: second 60 is a leap second, and the 29th of February needs a leap year.

Means the same in Python and ECMAScript; the last group exists because Python's `$` would accept a trailing newline.
"""
