"""`vitalstream mapping`: drafts a mapping, and shows what one finds in messages before a worker uses it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import typer

from broker.errors import SettingsError, VitalstreamError
from broker.settings import Settings
from producer.samples import load_sample, newest_messages
from schemas.columns import Columns
from schemas.contract import MAX_MESSAGE_BYTES, PATIENT_ID, Reason
from schemas.coverage import Coverage, Found, Rejected, coverage
from schemas.decoding import make_decoder, make_documents
from schemas.formats.json import parse
from schemas.lookalike import difference, look_alikes
from schemas.mapping import BY_CODE, load_mapping
from schemas.messages import Message, plain
from schemas.names import Names
from schemas.printable import printable
from schemas.suggestion import suggest as suggest_mapping
from vitalstream.tables import make_table, print_table

_LONGEST: Final = 60  # characters of a name


@dataclass(frozen=True)
class Sample:
    """Messages, their source, and each one's name there."""

    source: str
    messages: Sequence[Message]
    names: Sequence[str]
    keys: Sequence[bytes | None] = ()


def take_sample(settings: Settings, *, sample: Path | None, topic: str | None, limit: int) -> Sample:
    """The first messages of a file, or the newest of a topic.

    Raises SettingsError if neither or both are given, or there are no messages.
    """
    if sample is not None and topic is None:
        values = load_sample(sample, option="--sample", most=limit, value_format=settings.value_format)
        names = [f"message {number}" for number in range(1, len(values) + 1)]
        return Sample(str(sample), plain(values), names)
    if topic is not None and sample is None:
        found: Sequence[Any] = newest_messages(settings, topic, most=limit)
        places = [f"{one.partition()}@{one.offset()}" for one in found]
        return Sample(f"topic {topic}", found, places, [one.key() for one in found])
    raise SettingsError("give the messages to read: either --sample FILE or --topic NAME")


def check(
    settings: Settings,
    mapping: Path,
    *,
    sample: Path | None,
    topic: str | None,
    limit: int,
    payload: bool,
    json: bool,
) -> None:
    """Print what the mapping finds in the sample; exit with code 1 unless every message and feature is read."""
    settings = _of(settings, topic).model_copy(update={"mapping": mapping})
    known = load_mapping(mapping, value_format=settings.value_format)
    decode = make_decoder(settings)
    taken = take_sample(settings, sample=sample, topic=topic, limit=limit)
    found = coverage(
        decode,
        taken.messages,
        expected=[name for name in decode.features if not known.features[name].absent],
    )
    remarks = [
        *_remarks(found),
        *_alike(decode.names, taken.messages),
        *_keys(taken, decode.read(taken.messages)),
    ]
    if json:
        document = _document(found, taken, remarks, sha256=known.sha256, payload=payload)
        typer.echo(orjson.dumps(document).decode())
    else:
        typer.echo(
            f"mapping {mapping} (sha256 {known.sha256[:12]}) on {_messages(found.messages)} of {taken.source}\n"
        )
        _print(found, taken, remarks, payload=payload)
    if not found.complete:
        raise typer.Exit(1)


def _of(settings: Settings, topic: str | None) -> Settings:
    """With `topic` as the input topic, whose name the registry's subjects follow."""
    return settings if topic is None else settings.model_copy(update={"input_topic": topic})


class IncompleteMappingError(VitalstreamError):
    """Something that every mapping needs was not found."""


def suggest(settings: Settings, *, sample: Path | None, topic: str | None, limit: int) -> None:
    """Print a first mapping for the sample.

    Raises:
        IncompleteMappingError: patient, time or features were not found; what was found is printed first.
    """
    if settings.value_format in BY_CODE:
        raise SettingsError(
            f"--value-format {settings.value_format}: use the built-in mapping by codes; begin with vitalstream "
            f"mapping check {settings.value_format}, and copy it if it lacks some of your codes"
        )
    taken = take_sample(settings, sample=sample, topic=topic, limit=limit)
    documents = make_documents(_of(settings, topic))
    if documents is None:
        found, _ = parse([one.value() for one in taken.messages], max_bytes=MAX_MESSAGE_BYTES)
    else:
        _, found, _ = documents(taken.messages)
    if not found:
        raise SettingsError(f"{taken.source} has no message that is an object; see --value-format")
    suggestion = suggest_mapping(found)
    typer.echo(
        f"# A first mapping, from {_messages(len(found))}. Review each line, above all the units, then try it with\n"
        "# vitalstream mapping check.\n"
    )
    typer.echo(suggestion.text, nl=False)
    if suggestion.missing:
        raise IncompleteMappingError(
            f"no {', no '.join(suggestion.missing)} found by name; add their paths to the mapping, as "
            "docs/formats.md shows"
        )


def _print(found: Coverage, taken: Sample, remarks: list[str], *, payload: bool) -> None:
    table = make_table(
        "feature", "messages", "share", "values", "unit", "sent in", right=("messages", "share")
    )
    for one in found.features:
        table.add_row(
            printable(one.name),
            f"{one.messages:,}",
            _share(one, found),
            _span(one),
            one.unit or "",
            _units(one),
        )
    print_table(table)
    if found.rejected:
        columns = ("rejected", "field", "messages", "first", *(["there"] if payload else []))
        table = make_table(*columns, right=("messages",), folds="there")
        for reject in found.rejected:
            there = [", ".join(printable(text) for text in reject.examples)] if payload else []
            first = taken.names[reject.first]
            table.add_row(reject.reason, printable(reject.field), f"{reject.messages:,}", first, *there)
        print_table(table)
    for remark in remarks:
        typer.echo(f"note: {remark}")
    when = f", from {found.times[0]} to {found.times[1]}" if found.times else ""
    patients = f"{found.patients:,} patient{'' if found.patients == 1 else 's'}"
    typer.echo(f"{found.accepted:,} of {_messages(found.messages)} would be scored: {patients}{when}")


def _document(
    found: Coverage, taken: Sample, remarks: list[str], *, sha256: str, payload: bool
) -> dict[str, Any]:
    return {
        "mapping": sha256,
        "complete": found.complete,
        "messages": found.messages,
        "scored": found.accepted,
        "patients": found.patients,
        "first_time": found.times[0] if found.times else None,
        "last_time": found.times[1] if found.times else None,
        "features": [
            {
                "name": one.name,
                "messages": one.messages,
                "share": one.messages / found.ours if found.ours else 0.0,
                "lowest": one.span[0] if one.span else None,
                "highest": one.span[1] if one.span else None,
                "unit": one.unit,
                "sent_in": dict(one.units),
                "implausible": one.implausible,
            }
            for one in found.features
        ],
        "rejected": [_rejected(one, taken, payload=payload) for one in found.rejected],
        "notes": remarks,
    }


def _rejected(one: Rejected, taken: Sample, *, payload: bool) -> dict[str, Any]:
    told = {
        "reason": one.reason,
        "field": one.field,
        "messages": one.messages,
        "first": taken.names[one.first],
    }
    return told | ({"there": [*one.examples]} if payload else {})


def _remarks(found: Coverage) -> Iterator[str]:
    if found.absent:
        yield (
            f"no message has {', '.join(map(printable, found.absent))}: correct the path or code, or set absent = true"
        )
    for one in found.features:
        if one.implausible:
            yield (
                f"{printable(one.name)} is outside its limits in {_messages(one.implausible)}, and so missing to "
                "the model: is the unit right?"
            )
    for reject in found.rejected:
        if (reject.reason, reject.field) == (Reason.CONFLICTING, PATIENT_ID):
            yield (
                f"{_messages(reject.messages)} with several patients, or several IDs of one: if the latter, choose "
                'one by patient_id = { type = "..." }'
            )
    if found.empty:
        yield f"{_messages(found.empty)} would be scored with no features"


def _alike(names: Names, messages: Sequence[Message]) -> Iterator[str]:
    found = sorted({name for one in messages for name in names.of(one)})
    for name, wanted in look_alikes(found, names.wanted):
        yield (
            f"the messages' {printable(name, _LONGEST)} only looks like the mapping's {printable(wanted, _LONGEST)} "
            f"({difference(name, wanted)})"
        )


def _keys(taken: Sample, columns: Columns) -> Iterator[str]:
    """Kafka keeps order only within a key."""
    if not taken.keys:
        return
    patients = zip(columns.positions, columns.patient_ids, strict=True)
    others = sum(
        type(patient) is str and taken.keys[position] != patient.encode() for position, patient in patients
    )
    if others:
        yield (
            f"the key of {_messages(others)} is not the patient's id: messages of one patient may be scored in another "
            "order than they were sent"
        )


def _share(one: Found, found: Coverage) -> str:
    return f"{100 * one.messages / found.ours:.3g} %" if found.ours else ""


def _span(one: Found) -> str:
    if one.span is None:
        return "none"
    lowest, highest = (f"{value:.5g}" for value in one.span)
    return lowest if lowest == highest else f"{lowest} to {highest}"


def _units(one: Found) -> str:
    return ", ".join(f"{printable(unit) or 'no unit'} {count:,}" for unit, count in one.units.most_common())


def _messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"
