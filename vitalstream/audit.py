"""`vitalstream audit`: runs the audit with a progress bar and prints its verdict."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from audit import reading
from audit.outcome import Audit, Verdict, Waiting
from audit.run import audit as run_audit
from broker.settings import Settings
from vitalstream.tables import at_most

_WIDTH: Final = 68  # of an invariant's number and claim
_EXIT_CODES: Final = {"clean": 0, "failed": 1, "incomplete": 3}


def audit(settings: Settings, models: Sequence[Path], *, state: Path | None = None, json: bool) -> None:
    """Audit and print; exit with code 1 if an invariant failed, with 3 if something could not be judged."""
    with _progress() as on_progress:
        found = run_audit(settings, models=models, saved_state=state, on_progress=on_progress)
    typer.echo(orjson.dumps(_document(found)).decode() if json else "\n".join(_lines(found)))
    if code := _EXIT_CODES[found.verdict]:
        raise typer.Exit(code)


def _lines(found: Audit) -> Iterator[str]:
    for verdict in found.verdicts:
        what = verdict.invariant
        yield f"{what} {what.claim:<{_WIDTH - len(what)}} {_state(verdict):<10} {verdict.checked}"
    for note in found.notes:
        yield f"note: {note}"
    for left in found.unjudged:
        yield f"not judged: {left.sentence}"
    for one in found.offenders:
        yield f"  {one.invariant} {one.topic} partition {one.partition} offset {one.offset}: {one.problem}"
    failed = sum(verdict.failed for verdict in found.verdicts)
    if failed > len(found.offenders):
        yield f"  and {failed - len(found.offenders):,} more"
    yield (
        f"{_verdict(found)}: {found.accounted:,} of {found.messages:,} messages consumed by group {found.group} "
        f"are accounted for; {_waiting(found.waiting)} ({found.seconds:.1f} s)"
    )


def _state(verdict: Verdict) -> str:
    if verdict.failed:
        return f"FAILED {verdict.failed:,}"
    return "ok in part" if verdict.unjudged else "ok"


def _verdict(found: Audit) -> str:
    disproved = ", ".join(verdict.invariant for verdict in found.verdicts if verdict.failed)
    return f"NOT clean, {disproved} failed" if disproved else found.verdict


def _waiting(waiting: Waiting) -> str:
    number = at_most(waiting.messages, exact=waiting.exact)
    return f"{number} still wait{'s' if waiting.messages == 1 else ''}"


def _document(found: Audit) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "clean": found.clean,
        "group": found.group,
        "messages": found.messages,
        "accounted": found.accounted,
        "waiting": found.waiting,
        "records": found.records,
        "aborted": found.aborted,
        "invariants": [
            {
                "invariant": one.invariant.value,
                "claim": one.invariant.claim,
                "checked": one.checked,
                "failed": one.failed,
                "unjudged": one.unjudged,
            }
            for one in found.verdicts
        ],
        "unjudged": found.unjudged,
        "offenders": found.offenders,
        "notes": found.notes,
        "seconds": round(found.seconds, 3),
    }


@contextmanager
def _progress() -> Iterator[reading.OnProgress]:
    """A progress bar for each pass, on stderr if that is a terminal."""
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
