"""`vitalstream state`: shows, checks and rebuilds the patients' state."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import typer

from audit.history import Fold
from audit.model import OfflineModel, load_offline
from audit.rebuild import rebuild as rebuild_state
from audit.saved import save_state
from audit.stored import Checked, Stored, check_state, copy_state, find_state
from broker.errors import SettingsError, VitalstreamError
from broker.roles import Role
from broker.settings import Settings
from real_time.history import PatientHistory
from real_time.history.recipe import CLOCK, FIRST, HEAD, LAST, LAST_TIME, LATE, OF_COLUMN, PREVIOUS, ROWS
from real_time.history.records import StateError, StateRecords
from schemas.clock import rfc3339
from schemas.decoding import make_decoder
from schemas.printable import printable

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class NoStateError(VitalstreamError):
    """There is no state for the patient, or it can't be read."""


class StateFailedError(VitalstreamError):
    """A worker could not start from the existing state."""


def show(settings: Settings, patient: str, *, json: bool) -> None:
    """Print a patient's state.

    Raises:
        SettingsError: the model can't be used or has no history.
        NoStateError: there is no state for the patient, or it can't be read.
        BrokerError: the brokers can't be reached, or the topic is missing.
    """
    _, history = _with_history(settings)
    found = [_document(one, history) for one in find_state(settings, patient)]
    if not found:
        raise NoStateError(
            f"topic {settings.topic(Role.STATE)} has no state for that patient; check the ID, --group and --input-topic"
        )
    if json:
        typer.echo(orjson.dumps(found).decode())
    else:
        typer.echo("\n".join(line for one in found for line in _lines(one)))


def check(settings: Settings, *, json: bool) -> None:
    """Print what the state topic holds.

    Raises:
        StateFailedError: a worker could not start from it.
        SettingsError: the model can't be used or has no history.
        BrokerError: the brokers can't be reached, or the topic is missing, or is not as it must be.
    """
    _, history = _with_history(settings)
    found = check_state(settings, _records(history))
    if json:
        typer.echo(
            orjson.dumps({"ok": not found.failed, "recipe": history.recipe_sha256, **_fields(found)}).decode()
        )
    else:
        beyond = f"; {found.beyond:,} records of later transactions" if found.beyond else ""
        typer.echo(
            f"{found.topic}: {found.patients:,} patients in {found.partitions} partitions, "
            f"{found.size / 1e6:,.1f} MB, recipe {history.recipe_sha256[:12]}{beyond}"
        )
        for one in found.offenders:
            typer.echo(f"  partition {one.partition} offset {one.offset}: {one.problem}")
    if found.failed:
        raise StateFailedError(
            f"a worker can't start from the state in {found.topic}: {found.failed:,} problems"
        )


def snapshot(settings: Settings, path: Path, *, json: bool) -> None:
    """Save the state of the group's committed offsets in a file.

    Raises:
        NotAuditableError: it is not sound, or changed while it was read.
        SettingsError: the model can't be used or has no history, or the file can't be written.
        BrokerError: the brokers can't be reached, or the topic is missing, or is not as it must be.
    """
    _, history = _with_history(settings)
    state = copy_state(settings, _records(history))
    save_state(state, path)
    if json:
        found = {"patients": state.patients, "offsets": state.offsets, "recipe": state.recipe}
        typer.echo(orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS).decode())
    else:
        typer.echo(
            f"{path}: {state.patients:,} patients in {len(state.offsets)} partitions, recipe {state.recipe[:12]}"
        )


def rebuild(settings: Settings, *, source: str, json: bool) -> None:
    """Write the state of a new group, and commit offsets for it.

    Raises:
        SettingsError: the model can't be used or has no history, or one of the groups is not as it must be.
        BrokerError: the brokers can't be reached or refuse, or a topic is missing, or the state topic is not empty.
    """
    if source == settings.group:
        raise SettingsError(
            "--from-group and --group are the same: the state is written for a new group, so give --group a new name"
        )
    model, history = _with_history(settings)
    fold = Fold(model, make_decoder(settings, model))
    done = rebuild_state(settings, fold, source=source, on_progress=lambda _: None)
    if json:
        typer.echo(
            orjson.dumps({"messages": done.messages, "patients": done.patients, "cut": done.cut}).decode()
        )
        return
    typer.echo(
        f"{settings.topic(Role.STATE)}: {done.patients:,} patients from {done.messages:,} messages, recipe "
        f"{history.recipe_sha256[:12]}; group {settings.group} starts at the offsets of {source}"
    )
    if done.cut:
        typer.echo(
            f"the first messages of partitions {', '.join(map(str, done.cut))} were deleted from "
            f"{settings.input_topic}, so the state lacks what they contained"
        )


def _with_history(settings: Settings) -> tuple[OfflineModel, PatientHistory]:
    if settings.model is None:
        raise SettingsError("--model is missing: its recipe defines the state")
    model = load_offline(Path(settings.model), **settings.of_model)
    history = model.scorer.history
    if history is None:
        raise SettingsError(
            f"--model: {settings.model} does not begin with a PatientHistory, so it has no state"
        )
    return model, history


def _records(history: PatientHistory) -> StateRecords:
    return StateRecords(history.start().layout, history.recipe_sha256)


def _document(stored: Stored, history: PatientHistory) -> dict[str, Any]:
    try:
        (row,) = _records(history).decode([stored.value])
    except StateError as error:
        raise NoStateError(f"that patient's state can't be read: {error}") from None
    return {
        "partition": stored.partition,
        "offset": stored.offset,
        "written_at": rfc3339(stored.at / 1000),
        "rows_seen": int(row[ROWS]),
        "first_seen": _time(row[FIRST]),
        "clock": _time(row[CLOCK]),
        "late": int(row[LATE]),
        "last": {
            name: {
                "value": _number(row[at + LAST]),
                "at": _time(row[at + LAST_TIME]),
                "before": _number(row[at + PREVIOUS]),
            }
            for name, at in zip(history.last_, range(HEAD, len(row), OF_COLUMN), strict=False)
        },
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"state     partition {found['partition']}, offset {found['offset']}, written {found['written_at']}"
    late = f", {found['late']:,} of them too late for a window" if found["late"] else ""
    yield f"messages  {found['rows_seen']:,}, from {found['first_seen']} to {found['clock']}{late}"
    for name, last in found["last"].items():
        before = "" if last["before"] is None else f", {last['before']:g} before that"
        known = "none" if last["value"] is None else f"{last['value']:g} at {last['at']}{before}"
        yield f"{printable(name)}: {known}"


def _fields(found: Checked) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Checked.__slots__}


def _time(microseconds: float) -> str | None:
    if math.isnan(microseconds):
        return None
    return (
        (_EPOCH + timedelta(microseconds=microseconds))
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
