"""`vitalstream replay` and `publish`: the producers, with a progress bar and a closing line."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from broker.errors import SettingsError, VitalstreamError
from broker.settings import Settings
from consumer.stop import Stop
from producer import pacing, sources
from producer import replay as replays
from producer.arrivals import AsArrived
from producer.publish import Refusal
from producer.publish import publish as publish_lines
from vitalstream.layouts import find, readers, tell_look_alikes

CHECKED_FIRST = 50_000
"""How many messages are read ahead, before anything is sent, and in a dry run."""


class RefusedLinesError(VitalstreamError):
    """Some lines for publish do not follow the schema."""


def replay(
    settings: Settings,
    files: list[Path],
    *,
    layout: str,
    rate: float | None,
    speed: float | None,
    poisson: bool,
    limit: int | None,
    repeat: int,
    seed: int,
    skip: int,
    all_variables: bool,
    keep_going: bool,
    as_arrived: bool,
    json: bool,
) -> None:
    """Send the files' rows to the input topic and print how many were sent, acknowledged, and how fast."""
    source = find(files, readers(layout, all_variables=all_variables, keep_going=keep_going))
    arrivals = AsArrived(source, seed=seed) if as_arrived else None
    schedule = _schedule(rate=rate, speed=speed, poisson=poisson, seed=seed)
    stop = Stop()
    stop.listen(grace=False)
    checked = AsArrived(source, seed=seed) if as_arrived else source
    _check(checked, last=CHECKED_FIRST if limit is None else min(CHECKED_FIRST, skip + limit), stop=stop)
    with _progress(limit, rate) as on_progress:
        summary = replays.replay(
            settings,
            source if arrivals is None else arrivals,
            pacer=pacing.Pacer(schedule) if schedule else None,
            skip=skip,
            limit=limit,
            repeat=repeat,
            stopped=lambda: stop.requested,
            on_progress=on_progress,
        )
    if skip and summary.complete and not summary.sent:
        raise SettingsError(f"--skip {skip}: the files have no more messages, so nothing was sent")
    result: dict[str, Any] = {
        "sent": summary.sent,
        "acknowledged": summary.acknowledged,
        "seconds": round(summary.seconds, 3),
        "rate": round(summary.rate, 1),
        "next_skip": None if summary.complete else skip + summary.sent,
    }
    if arrivals is not None:
        result |= arrivals.counts
    if json:
        typer.echo(orjson.dumps(result).decode())
        return
    typer.echo(
        f"sent {summary.sent:,}, acknowledged {summary.acknowledged:,} in {summary.seconds:.1f} s: "
        f"{summary.rate:,.0f} msg/s to {settings.input_topic}"
    )
    if arrivals is not None:
        typer.echo(of_rows(arrivals))
    if not summary.complete:
        rest = "" if limit is None else f" --limit {limit - summary.sent}"
        typer.echo(f"stopped before the end: continue with --skip {skip + summary.sent}{rest}")


def of_rows(arrivals: AsArrived) -> str:
    """How many rows the messages come from."""
    return (
        f"{arrivals.rows:,} rows read and split into one message per device; {arrivals.empty:,} without a "
        "measurement were left out"
    )


def _check(source: Iterable[sources.Record], *, last: int, stop: Stop) -> None:
    """Read the first messages before any is sent, and name columns that look like others. Raises SourceError."""
    names: dict[str, None] = {}
    try:
        for record in islice(source, last):
            names.update(dict.fromkeys(record))
            if stop.requested:
                break
    except sources.SourceError as error:
        raise sources.SourceError(f"{error}; nothing was sent") from None
    tell_look_alikes(names)


def publish(settings: Settings, *, json: bool) -> None:
    """Send the lines on stdin that follow the schema; report the others by number."""

    def refused(refusal: Refusal) -> None:
        typer.echo(f"line {refusal.line} not sent: {refusal.reason} {refusal.field}".rstrip(), err=True)

    # SIGTERM ends the input as Ctrl-C does; what was read is still sent.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    summary = publish_lines(settings, sys.stdin.buffer, on_refused=refused)  # type: ignore[arg-type]
    if json:
        typer.echo(orjson.dumps({"sent": summary.sent, "refused": summary.refused}).decode())
    else:
        typer.echo(f"sent {summary.sent:,} to {settings.input_topic}, refused {summary.refused:,}")
    if summary.refused:
        raise RefusedLinesError(f"{summary.refused} lines were not sent; the others were")


def _schedule(*, rate: float | None, speed: float | None, poisson: bool, seed: int) -> pacing.Schedule | None:
    if rate is not None and speed is not None:
        raise SettingsError("--rate and --speed can't be combined; give one")
    if poisson and rate is None:
        raise SettingsError("--poisson needs --rate, the average in messages a second")
    if speed is not None:
        return pacing.by_event_time(speed)
    if rate is None:
        return None
    return pacing.poisson(rate, seed=seed) if poisson else pacing.at_rate(rate)


@contextmanager
def _progress(limit: int | None, rate: float | None) -> Iterator[Callable[[replays.Progress], None]]:
    """A progress bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    wanted = f" of {rate:,.0f}" if rate else ""
    columns: list[Any] = [
        TextColumn("{task.fields[sent]:,} sent, {task.fields[acknowledged]:,} acknowledged"),
        BarColumn(),
        TextColumn("{task.fields[speed]:,.0f}" + wanted + " msg/s"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("replay", total=limit, sent=0, acknowledged=0, speed=0.0)
        yield lambda now: bar.update(
            task, completed=now.sent, sent=now.sent, acknowledged=now.acknowledged, speed=now.rate
        )
