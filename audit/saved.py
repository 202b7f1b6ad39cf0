"""Keeps a group's state in a file: the patients' states, and the committed offsets they belong to."""

import os
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import orjson

from audit.cluster import Offsets
from broker.errors import SettingsError
from real_time.history.records import StateError, StateRecords

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class SavedState:
    """The state of a group at its committed offsets.

    `offsets` has each partition of the input for which the group has committed one, `states` by partition the value of
    each patient as in the state topic.
    """

    input_topic: str
    topic_id: str
    group: str
    recipe: str
    offsets: Offsets
    states: dict[int, dict[str, bytes]] = field(default_factory=dict)

    @property
    def patients(self) -> int:
        """Number of patients."""
        return sum(map(len, self.states.values()))


def save_state(state: SavedState, path: Path) -> None:
    """Write JSON lines, one about the group and one per patient, into a file for its owner alone.

    Raises SettingsError if it can't be written.
    """
    new = path.with_name(f"{path.name}.new")  # a reader sees all of it, or none
    try:
        new.unlink(missing_ok=True)  # it would keep its permissions
        with open(new, "wb", opener=_for_the_owner) as file:
            file.writelines(_lines(state))
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise SettingsError(f"{path} can't be written: {error.strerror}") from None


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _lines(state: SavedState) -> Iterator[bytes]:
    head = asdict(state) | {"version": VERSION, "patients": state.patients}
    del head["states"]
    yield orjson.dumps(head, option=orjson.OPT_NON_STR_KEYS) + b"\n"
    for partition, patients in state.states.items():
        for patient, value in patients.items():
            line = {"partition": partition, "patient": patient, "state": b64encode(value).decode()}
            yield orjson.dumps(line) + b"\n"


def load_state(path: Path, records: StateRecords) -> SavedState:
    """Load a saved state. Raises SettingsError unless the file is complete and has this recipe."""
    try:
        with path.open("rb") as file, suppress(ValueError, TypeError, KeyError, StateError):
            return _loaded(file, records)
    except OSError as error:
        raise SettingsError(f"--state-snapshot: {path} can't be read: {error.strerror}") from None
    raise SettingsError(
        f"--state-snapshot: {path} is not a complete state snapshot with the model's recipe: make one with "
        "vitalstream state snapshot and this model"
    )


def _loaded(lines: Iterator[bytes], records: StateRecords) -> SavedState:
    """Parse the file. Raises ValueError, TypeError, KeyError or StateError if it is not a complete saved state."""
    head = orjson.loads(next(lines, b""))
    version, count = head.pop("version"), head.pop("patients")
    state = SavedState(**head | {"offsets": {int(p): offset for p, offset in head["offsets"].items()}})
    for line in lines:
        one = orjson.loads(line)
        state.states.setdefault(one["partition"], {})[one["patient"]] = b64decode(one["state"], validate=True)
    for values in state.states.values():
        records.decode([*values.values()])
    if version != VERSION or state.patients != count or state.recipe != records.recipe:
        raise ValueError
    return state
