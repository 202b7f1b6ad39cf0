"""The format pages of the docs: their messages and mappings, and what each message should give."""

import math
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
UTC = "2026-01-05T08:30:00Z"
HR = {"heart_rate": 84.0}
BOTH = {"heart_rate": 84.0, "spo2": 96.5}

# By heading: the patient, the time, the features, and the built-in mapping if the page shows none.
EXPECTED: dict[str, tuple[str, str, dict[str, float], str | None]] = {
    "Flat, other names": ("p-17", UTC, BOTH, None),
    "Whole numbers as patient ids, times in milliseconds": (
        "4711",
        "2026-01-05T08:30:00.250Z",
        BOTH,
        None,
    ),
    "Times without a zone": ("p-17", "2026-01-05T09:30:00+01:00", HR, None),
    "Two values in a text, other units": (
        "p-17",
        UTC,
        {"systolic_bp": 120, "diastolic_bp": 80, "temperature": 37, "spo2": 97},
        None,
    ),
    "Nested, with units": ("p-17", UTC, {"temperature": 37, "heart_rate": 84, "spo2": 96.5}, None),
    "A list by position": ("p-17", UTC, BOTH, None),
    "A list of readings by name": ("p-17", UTC, {"heart_rate": 84, "temperature": 36.9}, None),
    "One metric per message": ("p-17", UTC, {"heart_rate": 84, "spo2": math.nan}, None),
    "An envelope": ("p-17", UTC, HR, None),
    "Kafka Connect": ("p-17", UTC, BOTH, "connect"),
    "Debezium": ("4711", "2026-01-05T08:30:00.250Z", HR, None),
    "CloudEvents, structured": ("p-17", UTC, BOTH, "cloudevents"),
}


def sections() -> dict[str, str]:
    shapes = (DOCS / "formats.md").read_text("utf-8").split("\n## Shapes\n")[1]
    return {text.split("\n", 1)[0]: text for text in shapes.split("\n### ")[1:]}


def block(section: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, f"the section has no {language} block"
    return found[1]
