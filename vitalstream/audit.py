"""`vitalstream audit`: the verdict, line by line, and a bar on the way to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from audit import reading
from audit.run import Audit
from audit.run import audit as run_audit
from broker.settings import Settings


def audit(settings: Settings, *, json: bool) -> None:
    """Audit, print, and end with code 1 unless it is clean."""
    with _progress() as on_progress:
        found = run_audit(settings, on_progress=on_progress)
    typer.echo(orjson.dumps(_document(found)).decode() if json else "\n".join(_lines(found)))
    if not found.clean:
        raise typer.Exit(1)


def _lines(found: Audit) -> Iterator[str]:
    for verdict in found.verdicts:
        what = verdict.invariant
        state = f"FAILED {verdict.failed:,}" if verdict.failed else "ok"
        yield f"{what} {what.claim:<66} {state:<10} {verdict.checked}"
    for note in found.notes:
        yield f"note: {note}"
    for one in found.offenders:
        yield f"  {one.invariant} {one.topic} partition {one.partition} offset {one.offset}: {one.problem}"
    failed = sum(verdict.failed for verdict in found.verdicts)
    if failed > len(found.offenders):
        yield f"  and {failed - len(found.offenders):,} more"
    disproved = ", ".join(verdict.invariant for verdict in found.verdicts if verdict.failed)
    yield (
        f"{f'NOT clean, {disproved} failed' if disproved else 'clean'}: {found.accounted:,} of {found.messages:,} "
        f"messages consumed by group {found.group} are accounted for ({found.seconds:.1f} s)"
    )


def _document(found: Audit) -> dict[str, Any]:
    return {
        "clean": found.clean,
        "group": found.group,
        "messages": found.messages,
        "accounted": found.accounted,
        "records": found.records,
        "aborted": found.aborted,
        "invariants": [
            {
                "invariant": one.invariant.value,
                "claim": one.invariant.claim,
                "checked": one.checked,
                "failed": one.failed,
            }
            for one in found.verdicts
        ],
        "offenders": found.offenders,
        "notes": found.notes,
        "seconds": round(found.seconds, 3),
    }


@contextmanager
def _progress() -> Iterator[reading.OnProgress]:
    """A bar for each pass, on stderr where that is a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} rows/s"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(now: reading.Progress) -> None:
            if now.stage not in tasks:
                tasks[now.stage] = bar.add_task(now.stage, total=1.0, rate=0.0)
            rate = now.rows / now.seconds if now.seconds else 0.0
            bar.update(tasks[now.stage], completed=now.share, rate=rate)

        yield show
