"""`vitalstream status`: tables or one JSON object, and an exit code."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import typer

from broker.settings import Settings
from schemas.clock import rfc3339
from schemas.contract import Reason
from schemas.printable import printable
from vitalstream.dead_letters import print_json
from vitalstream.status.gather import DEAD_LETTERS_S, Partition, Status, gather, problems
from vitalstream.tables import at_most, make_table, print_table

NEEDS_SOMEBODY: Final = 3
"""The exit code for a problem; 1 is for brokers that do not answer."""


def status(settings: Settings, *, json: bool) -> None:
    """Print the group's state; exit with `NEEDS_SOMEBODY` if there is a problem."""
    found = gather(settings)
    wrong = [*problems(found, settings.input_topic)]
    if json:
        print_json(_document(found, wrong, settings))
    else:
        _print(found, wrong, settings)
    if wrong:
        raise typer.Exit(NEEDS_SOMEBODY)


def _print(found: Status, wrong: list[str], settings: Settings) -> None:
    typer.echo(_summary(found))
    for problem in wrong:
        typer.echo(f"problem: {problem}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    typer.echo()
    if found.members:
        workers = make_table("worker", "host", "partitions", folds="partitions")
        for member in found.members:
            workers.add_row(printable(member.client_id), printable(member.host), _listed(member.partitions))
        print_table(workers)
    numbers = ("partition", "committed", "end", "waiting", "oldest")
    partitions = make_table(*numbers, "worker", right=numbers, folds="worker")
    owners = {number: one.client_id for one in found.members for number in one.partitions}
    for one in found.partitions:
        partitions.add_row(*_cells(one, found.at), printable(owners.get(one.partition, "-")))
    print_table(partitions)
    for line in _outputs(found, settings):
        typer.echo(line)


def _summary(found: Status) -> str:
    oldest = "" if found.oldest_s is None else f", the oldest for {_span(found.oldest_s)}"
    workers = "1 worker" if len(found.members) == 1 else f"{len(found.members):,} workers"
    count = at_most(found.waiting, exact=found.counted)
    waiting = "1 message waits" if count == "1" else f"{count} messages wait"
    state = "unknown to the brokers" if found.state == "dead" else found.state
    return f"group {found.group} is {state}: {workers}; {waiting}{oldest}"


def _cells(one: Partition, at: float) -> Iterator[str]:
    yield str(one.partition)
    yield "-" if one.committed is None else str(one.committed)
    yield str(one.end)
    yield at_most(one.waiting, exact=one.counted)
    yield "-" if one.oldest_at is None else _span(at - one.oldest_at)


def _outputs(found: Status, settings: Settings) -> Iterator[str]:
    if found.dead_letters is not None:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in found.dead_letters.most_common())
        yield f"dead letters of the last hour on {settings.dead_letter_topic}: {counts or 'none'}"
    for one in found.scoring or ():
        yield (
            f"model {one.model[:12]} made the newest results of partitions {_listed(one.partitions)} of "
            f"{settings.output_topic}, the last at {one.scored_at}"
        )
    if found.scoring == []:
        yield f"no results on {settings.output_topic}"


def _document(found: Status, wrong: list[str], settings: Settings) -> dict[str, Any]:
    return {
        "at": rfc3339(found.at),
        "problems": wrong,
        "notes": found.notes,
        "group": found.group,
        "state": found.state,
        "members": found.members,
        "input": {
            "topic": settings.input_topic,
            "waiting": found.waiting,
            "counted": found.counted,
            "oldest_s": found.oldest_s,
            "partitions": [_partition(one) for one in found.partitions],
        },
        "dead_letters": {
            "topic": settings.dead_letter_topic,
            "seconds": DEAD_LETTERS_S,
            "reasons": None if found.dead_letters is None else _by_name(found.dead_letters),
        },
        "results": {"topic": settings.output_topic, "models": found.scoring},
    }


def _by_name(counts: Mapping[Reason, int]) -> dict[str, int]:
    return {reason.value: count for reason, count in counts.items()}


def _partition(one: Partition) -> dict[str, Any]:
    return {
        "partition": one.partition,
        "start": one.start,
        "end": one.end,
        "committed": one.committed,
        "waiting": one.waiting,
        "counted": one.counted,
        "oldest_at": None if one.oldest_at is None else rfc3339(one.oldest_at),
    }


def _listed(partitions: list[int]) -> str:
    return ", ".join(map(str, partitions)) or "none"


def _span(seconds: float) -> str:
    """Two units at most: `4 s`, `3 min 20 s`, `5 h 3 min`, `2 d 4 h`."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"
