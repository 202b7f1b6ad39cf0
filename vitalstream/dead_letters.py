"""`vitalstream dead-letters list` and `show`: the counts, the newest letters, and a single one.

A letter's key, payload and own headers may identify a patient. Only `show --payload` prints them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import typer
from rich.table import Table

from broker.errors import SettingsError, VitalstreamError
from broker.settings import Settings
from producer.letters import Letter, LetterBox, Selection, Sources, own_headers
from schemas.clock import rfc3339
from schemas.contract import Reason, RefusedError
from schemas.dead_letters import PREFIX, dead_letter_headers
from schemas.decoding import make_documents
from schemas.formats.hl7v2 import text_of
from schemas.printable import printable
from vitalstream.tables import make_table, print_table

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class NoSuchLetterError(VitalstreamError):
    """The message has no dead letter."""


@dataclass
class _Group:
    """The dead letters with the same reason and field."""

    letters: int = 0
    replayed: int = 0
    first: float = float("inf")
    last: float = 0

    def add(self, letter: Letter, *, replayed: bool) -> None:
        self.letters += 1
        self.replayed += replayed
        self.first = min(self.first, letter.at)
        self.last = max(self.last, letter.at)


def select(*, reason: Reason | None, field: str | None, since: str | None) -> Selection:
    """The dead letters that the options select.

    Raises SettingsError if `since` is neither a time nor a duration.
    """
    return Selection(reason=reason, field=field, since=None if since is None else _parse_since(since) * 1000)


def list_letters(settings: Settings, selection: Selection, *, json: bool) -> None:
    """Print the number of letters by reason and field, how many were replayed, and their first and last times."""
    letter_box = LetterBox(settings, settled=False)
    put_back = letter_box.put_back()
    groups: dict[tuple[str, str], _Group] = {}
    for letter in letter_box.letters():
        if letter in selection:
            group = groups.setdefault((letter.origin.reason, letter.origin.field), _Group())
            group.add(letter, replayed=(letter.partition, letter.offset) in put_back)
    if json:
        print_json({"dead_letters": [*_documents(groups)], "unreadable": letter_box.unreadable})
        return
    if groups:
        print_table(_table(groups))
    letters = sum(group.letters for group in groups.values())
    replayed = sum(group.replayed for group in groups.values())
    typer.echo(f"{letters:,} dead letters on {settings.dead_letter_topic}, {replayed:,} of them replayed")
    if letter_box.unreadable:
        typer.echo(f"{letter_box.unreadable:,} records on it are not dead letters")


def _documents(groups: dict[tuple[str, str], _Group]) -> Iterator[dict[str, Any]]:
    for (reason, field), group in sorted(groups.items()):
        yield {
            "reason": reason,
            "field": field,
            "letters": group.letters,
            "replayed": group.replayed,
            "first": rfc3339(group.first / 1000),
            "last": rfc3339(group.last / 1000),
        }


def _table(groups: dict[tuple[str, str], _Group]) -> Table:
    numbers = ("letters", "replayed")
    table = make_table("reason", "field", *numbers, "first", "last", right=numbers, folds="field")
    for (reason, field), group in sorted(groups.items()):
        counts = f"{group.letters:,}", f"{group.replayed:,}"
        table.add_row(reason, printable(field), *counts, _minute(group.first), _minute(group.last))
    return table


def list_newest(settings: Settings, selection: Selection, limit: int, *, json: bool) -> None:
    """Print the newest `limit` letters, newest first, with the positions that `show` takes."""
    letter_box = LetterBox(settings, settled=False)
    newest = letter_box.newest(selection, limit)
    if json:
        documents = [_about(settings, letter, replayed=replayed) for letter, replayed in newest]
        print_json({"dead_letters": documents, "unreadable": letter_box.unreadable})
        return
    if newest:
        print_table(_newest_table(newest))
    typer.echo(f"{len(newest):,} dead letters on {settings.dead_letter_topic}, newest first")


def _newest_table(newest: Sequence[tuple[Letter, bool]]) -> Table:
    numbers = ("partition", "offset")
    table = make_table(*numbers, "reason", "field", "dead-lettered", "replayed", right=numbers, folds="field")
    for letter, replayed in newest:
        origin = letter.origin
        position = str(origin.partition), str(origin.offset)
        why = origin.reason, printable(origin.field)
        table.add_row(*position, *why, _minute(letter.made_at), "yes" if replayed else "no")
    return table


def _minute(milliseconds: float) -> str:
    return rfc3339(milliseconds / 1000)[:16] + "Z"


def show(settings: Settings, partition: int, offset: int, *, payload: bool, json: bool) -> None:
    """Print the dead letters of the input message at this position; its content only with `payload`."""
    letter_box = LetterBox(settings, settled=False)
    put_back = letter_box.put_back()
    documents = []
    with closing(Sources(settings)) as sources:
        for letter in letter_box.letters():
            if (letter.origin.partition, letter.origin.offset) == (partition, offset):
                replayed = (letter.partition, letter.offset) in put_back
                found = _about(settings, letter, replayed=replayed)
                documents.append(found | (_content(letter, sources, settings) if payload else {}))
    if not documents:
        raise NoSuchLetterError(
            f"topic {settings.dead_letter_topic} has no dead letter for partition {partition} offset {offset} of an "
            "input topic; give the source message's position, as in the worker's log or from dead-letters list --limit"
        )
    if json:
        print_json({"dead_letters": documents})
        return
    for document in documents:
        for name, text in document.items():
            typer.echo(f"{name:<15} {_line(text)}")
        typer.echo()


def _about(settings: Settings, letter: Letter, *, replayed: bool) -> dict[str, Any]:
    """The letter's position and its `dlq.*` headers; only the sizes of everything else."""
    own = [(name, value) for name, value in own_headers(letter.message) if not name.startswith(PREFIX)]
    return {
        "dead_letter": f"{settings.dead_letter_topic}-{letter.partition}@{letter.offset}",
        **{name: value.decode() for name, value in dead_letter_headers(letter.origin)},
        "source_sent": rfc3339(letter.at / 1000),
        "dead_lettered": rfc3339(letter.made_at / 1000),
        "replayed": replayed,
        "key_bytes": len(_bytes(letter.message.key())),
        "value_bytes": len(_bytes(letter.message.value())),
        "other_headers": len(own),
    }


def _content(letter: Letter, sources: Sources, settings: Settings) -> dict[str, Any]:
    """Key, headers and value as sent; a value that is not text as the worker decodes it."""
    message = sources.fetch(letter) if letter.origin.pointer else letter.message
    if message is None:
        return {"value": None, "note": "too large to keep here, and no longer on the input topic"}
    own = {f"header {name}": value for name, value in own_headers(message) if not name.startswith(PREFIX)}
    parts = {**own, "key": message.key()}
    shown = {name: None if part is None else _text(_bytes(part)) for name, part in parts.items()}
    return shown | {
        "value": _value(message, settings.model_copy(update={"input_topic": letter.origin.topic}))
    }


def _value(message: Any, settings: Settings) -> str | None:
    content = message.value()
    if content is None:
        return None
    if (read := make_documents(settings)) is None:
        return _text(bytes(content), text_of if settings.value_format == "hl7v2" else bytes.decode)
    _, documents, _ = read([message])
    return orjson.dumps(documents[0], default=_as_text).decode() if documents else _hex(bytes(content))


def _as_text(value: Any) -> str:
    return _hex(value) if isinstance(value, bytes) else str(value)


def _hex(content: bytes) -> str:
    return f"hex of {len(content):,} bytes: {content.hex()}"


def _parse_since(text: str) -> float:
    """Unix seconds of an RFC 3339 time (UTC if it names no zone) or of a duration ago, such as 2h."""
    if ago := re.fullmatch(r"([0-9]+)([smhd])", text):
        return datetime.now(UTC).timestamp() - int(ago[1]) * _SECONDS[ago[2]]
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            "--since takes a time such as 2026-01-05T08:30:00Z, or how long ago: 90m, 2h, 3d"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _text(content: bytes, decode: Callable[[bytes], str] = bytes.decode) -> str:
    """As text if it is text, else in hex."""
    try:
        return (
            decode(content).encode().decode()
        )  # not with surrogates, which stand for bytes that are not text
    except (UnicodeError, RefusedError):
        return _hex(content)


def _line(value: Any) -> str:
    """A value on one line, without control characters."""
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def _bytes(content: Any) -> bytes:
    return b"" if content is None else bytes(content)


def print_json(document: Any) -> None:
    """One JSON object on stdout."""
    typer.echo(orjson.dumps(document).decode())
