"""`vitalstream replay --dry-run`: what would be sent, and how each column is read."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.settings import Settings
from producer.arrivals import AsArrived
from producer.physionet import EPOCH
from producer.preview import PASSED_ON, SHOWN, Column, Preview, preview
from producer.sources import SourceError
from producer.values import UnreadableError, zone
from schemas.clock import rfc3339
from schemas.contract import EVENT_TIME, PATIENT_ID
from schemas.encoding import make_encoder, make_splitter
from vitalstream.layouts import PLAIN, find, readers, tell_look_alikes
from vitalstream.produce import CHECKED_FIRST, of_rows

_NO_ZONE: Final = "none"
_LONGEST: Final = 24  # characters of an example


def show(
    settings: Settings,
    files: list[Path],
    *,
    layout: str,
    skip: int,
    limit: int | None,
    all_variables: bool,
    keep_going: bool,
    as_arrived: bool,
    seed: int,
    json: bool,
) -> None:
    """Print the first messages and the columns of the files. Sends nothing and needs no broker.

    Raises:
        SettingsError: the files can't be read, there is no such format, or a row does not fit the schema.
        RegistryError: the schema registry does not answer.
        SourceError: a file is malformed.
    """
    write, split = make_encoder(settings), make_splitter(settings)
    zones: set[str] = set()
    how = readers(
        layout,
        all_variables=all_variables,
        keep_going=keep_going,
        on_time=lambda text: zones.add(_zone(text)),
    )
    found = find(files, how)
    arrivals = AsArrived(found, seed=seed) if as_arrived else None
    messages = found if arrivals is None else arrivals
    most = CHECKED_FIRST if limit is None else min(CHECKED_FIRST, limit)
    try:
        what = preview(islice(split(messages), skip, None), most=most, write=write)
    except SourceError as error:
        raise SourceError(f"{error}; nothing was sent") from None
    zones.discard("")
    tell_look_alikes(column.name for column in what.columns)
    if json:
        counts = {} if arrivals is None else arrivals.counts
        typer.echo(orjson.dumps(document(what, sorted(zones)) | counts).decode())
        return
    console = Console(highlight=False)
    if arrivals is not None:
        console.print(of_rows(arrivals), soft_wrap=True)
    console.print(_heading(what, skip), soft_wrap=True)
    for key, value in what.first:
        shown = "no key" if key is None else _escaped(key.decode())
        console.print(Text(f"{shown}  {_message(value)}"), soft_wrap=True)
    console.print(table(what))
    for line in remarks(what, zones, layout, all_variables=all_variables):
        console.print(Text(line), soft_wrap=True)


def document(what: Preview, zones: list[str]) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "sent": 0,
        "messages": what.messages,
        "whole": what.whole,
        "dead_letters": what.dead_letters,
        "first": [
            {
                "key": None if key is None else key.decode(),
                "value": orjson.loads(value) if value.startswith(b"{") else _message(value),
            }
            for key, value in what.first
        ],
        "columns": [
            {
                "name": column.name,
                "role": column.role,
                "type": column.type,
                "unit": column.unit,
                "values": column.values,
                "nulls": what.messages - column.values,
                "lowest": column.span[0] if column.span else None,
                "highest": column.span[1] if column.span else None,
                "texts": len(column.texts),
                "examples": [*islice(column.texts, SHOWN)],
                "zones": zones if column.name == EVENT_TIME else None,
                "rejected": column.rejected,
                "rejected_examples": [*islice(column.rejected_texts, SHOWN)],
                "implausible": column.implausible,
            }
            for column in what.columns
        ],
    }


def _message(value: bytes) -> str:
    """JSON as sent, HL7 with each segment on its own line, and anything else in hex."""
    if value.startswith((b"{", b"MSH")):
        return value.decode().replace("\r", "\n")
    return f"hex of {len(value)} bytes: {value.hex()}"


def table(what: Preview) -> Table:
    """One line per column."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("column", "read as", "type", "values"):
        table.add_column(name, overflow="fold")
    table.add_column("missing", justify="right", no_wrap=True)
    for column in what.columns:
        role = f"{column.role}, {column.unit}" if column.unit else column.role
        table.add_row(
            *map(Text, (_escaped(column.name), role, column.type, _values(column))),
            f"{what.messages - column.values:,}",
        )
    return table


def remarks(what: Preview, zones: set[str], layout: str, *, all_variables: bool) -> Iterator[str]:
    """Notes on what to look at again."""
    if layout != PLAIN:
        yield f"event_time: the files count from admission, taken to be {rfc3339(EPOCH)}"
        if not all_variables:
            yield "other variables of the files are sent only with --all-variables"
    elif _NO_ZONE in zones:
        others = sorted(zones - {_NO_ZONE})
        yield f"event_time: without a zone, taken as UTC{f'; others have {_listed(others)}' if others else ''}"
    for column in what.columns:
        if column.implausible:
            found = _messages(column.implausible)
            yield f"{column.name}: outside physiologic limits in {found}, so missing to the model; is the unit right?"
        if column.rejected and (column.has_numbers or column.role != PASSED_ON):
            yield f"{_escaped(column.name)}: {_rejected(column)}"
    if passed_on := [_escaped(column.name) for column in what.columns if column.role == PASSED_ON]:
        yield f"{_listed(passed_on)}: ignored unless the model has a feature of that name"
    if what.dead_letters:
        yield f"dead letters with a model of the standard features: {what.dead_letters:,} of {what.messages:,} messages"


def _rejected(column: Column) -> str:
    examples = _listed([_short(text) for text in islice(column.rejected_texts, SHOWN)])
    what = {PATIENT_ID: "no patient id", EVENT_TIME: "no event time"}.get(column.name, "no number")
    unless = ", if the model has this feature" if column.role == PASSED_ON else ""
    return f"{what} in {_messages(column.rejected)} ({examples}), which become dead letters{unless}"


def _messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def _heading(what: Preview, skip: int) -> str:
    read = (
        f"all {_messages(what.messages)}" if what.whole else f"the first {_messages(what.messages)} of more"
    )
    after = f" after skipping {skip:,}" if skip else ""
    return f"read {read}{after}; nothing was sent. The first messages as they would be sent:"


def _values(column: Column) -> str:
    if column.span is not None:
        lowest, highest = map(_end, column.span)
        return lowest if lowest == highest else f"{lowest} to {highest}"
    if len(column.texts) > SHOWN:
        return f"{len(column.texts):,} different"
    return _listed([_short(text) for text in column.texts])


def _end(value: Any) -> str:
    """A number to four digits, or a time to the minute with its zone."""
    return f"{value[:10]} {value[11:16]}{zone(value)}" if isinstance(value, str) else str(round(value, 4))


def _short(text: str) -> str:
    text = _escaped(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _escaped(text: str) -> str:
    """Without control characters."""
    return orjson.dumps(text)[1:-1].decode()


def _listed(texts: list[str]) -> str:
    return ", ".join(texts)


def _zone(text: str) -> str:
    try:
        return zone(text) or _NO_ZONE
    except UnreadableError:
        return ""
