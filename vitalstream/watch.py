"""`vitalstream watch`: follows the risk topic as a live table, as lines, or as NDJSON."""

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import orjson
import typer
from confluent_kafka import Message
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from broker.settings import Settings
from consumer.stop import Stop
from schemas.printable import printable
from schemas.reading import MessageError, reader
from schemas.result_format import make_result_loader
from schemas.results import RiskResult
from vitalstream.board import (
    OLDEST,
    Board,
    PatientRisk,
    age,
    arrow,
    oldest,
    reaches,
    risk_bar,
    shortened,
    sparkline,
    unscored,
)
from vitalstream.follow import Follower
from vitalstream.tables import make_table

PATIENCE_S = 0.1
FRAMES_PER_S = 8
QUIET_S = 10.0
"""After this long the table says how long nothing has arrived."""
OLD_S = 300.0
"""A patient last seen this long ago is dimmed."""

_AROUND_TABLE = 6  # lines: title, header, rules, "more", notes
_WIDE = 110  # columns from which on there is room to spare
_WITH_TIME = 78  # columns from which on the event time is shown
_SILENCE_S = 60.0


class Output(ABC):
    """Where results go; a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def add(self, result: RiskResult, message: Message, *, wanted: bool) -> None:
        """Take a result, to be shown only if `wanted`."""

    @abstractmethod
    def refresh(self, notes: str, quiet: float) -> None:
        """Called after each read, several times a second; nothing has arrived for `quiet` seconds."""


def watch(
    settings: Settings, *, from_beginning: bool, limit: int | None, min_risk: float | None, json: bool
) -> None:
    """Show results of at least `min_risk` until stopped, idle, or `limit` of them were shown."""
    load = make_result_loader(settings)
    stop = Stop()
    stop.listen(grace=False)
    console = Console()
    live = not json and sys.stdout.isatty() and not console.is_dumb_terminal
    with Follower(settings, [settings.output_topic], from_beginning=from_beginning) as follower:
        since = "from the beginning" if from_beginning else "from now on"
        typer.echo(f"following {settings.output_topic} {since}; Ctrl-C ends it", err=True)
        try:
            with _output(console, settings, live=live, json=json, min_risk=min_risk) as output:
                watching = _Watching(
                    output,
                    stop,
                    read=reader(RiskResult, load),
                    limit=limit,
                    min_risk=min_risk,
                    until_idle=settings.until_idle,
                )
                watching.follow(follower)
        except BrokenPipeError:
            _forget_stdout()
    if watching.skipped:
        typer.echo(watching.notes, err=True)


def _output(
    console: Console, settings: Settings, *, live: bool, json: bool, min_risk: float | None
) -> Output:
    if json:
        return JsonLines()
    return LiveTable(console, settings.output_topic, min_risk=min_risk) if live else Lines()


class _Watching:
    """One run of watch: what was shown and skipped, and when it ends."""

    def __init__(
        self,
        output: Output,
        stop: Stop,
        *,
        read: Callable[[bytes | None], RiskResult],
        limit: int | None,
        min_risk: float | None,
        until_idle: float | None,
    ) -> None:
        self._output = output
        self._stop = stop
        self._read = read
        self._left = limit
        self._min_risk = min_risk
        self._until_idle = until_idle
        self.skipped = 0
        self._first_skipped = ""
        self._framed = False  # whether one of them begins as Avro behind a schema ID does

    @property
    def notes(self) -> str:
        """A note on what was skipped, if anything."""
        if not self.skipped:
            return ""
        values = "1 value" if self.skipped == 1 else f"{self.skipped:,} values"
        hint = "; of Avro, give --result-format avro and --schema-registry" if self._framed else ""
        return f"skipped {values} that are not results, the first at {self._first_skipped}{hint}"

    def follow(self, follower: Follower) -> None:
        """Read and show until it ends."""
        active_at = time.monotonic()
        while not self._stop.requested and self._left != 0:
            messages = follower.read(PATIENCE_S)
            for message in messages:
                self._show(message)
                if self._left == 0:
                    break
            now = time.monotonic()
            active_at = now if messages else active_at
            self._output.refresh(self.notes, now - active_at)
            if self._until_idle is not None and now - active_at >= self._until_idle:
                return

    def _show(self, message: Message) -> None:
        try:
            result = self._read(message.value())
        except MessageError:
            self.skipped += 1
            self._framed = self._framed or (message.value() or b"").startswith(b"\0")
            place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
            self._first_skipped = self._first_skipped or place
            return
        wanted = reaches(result, self._min_risk)
        self._output.add(result, message, wanted=wanted)
        if wanted and self._left is not None:
            self._left -= 1


class Silence:
    """Says on stderr that nothing arrives: after a minute, two, four, and so on."""

    def __init__(self) -> None:
        self._next = _SILENCE_S

    def lasts(self, quiet: float) -> None:
        """Nothing has come for `quiet` seconds."""
        if quiet < _SILENCE_S:
            self._next = _SILENCE_S
        elif quiet >= self._next:
            typer.echo(f"nothing for {age(quiet)}", err=True)
            self._next *= 2


class JsonLines(Output):
    """Each value as on the topic, one per line; Avro as JSON."""

    def __init__(self) -> None:
        self._silence = Silence()

    @override
    def add(self, result: RiskResult, message: Message, *, wanted: bool) -> None:
        value: Any = message.value()
        if not value.startswith(b"{"):
            value = orjson.dumps(result)
        # Our JSON has no line breaks; in other JSON they can only be whitespace between tokens.
        if wanted:
            sys.stdout.buffer.write(value.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n")

    @override
    def refresh(self, notes: str, quiet: float) -> None:
        """Flush stdout, for the program that reads it."""
        sys.stdout.buffer.flush()
        self._silence.lasts(quiet)


class Lines(Output):
    """One line per result, as for a log."""

    def __init__(self) -> None:
        self._board = Board()
        self._silence = Silence()

    @override
    def add(self, result: RiskResult, message: Message, *, wanted: bool) -> None:
        patient = self._board.add(result, _published(message))
        if not wanted:
            return
        risk = unscored(result) if result.risk_probability is None else f"{result.risk_probability:.3f}"
        label = "-" if result.risk_label is None else result.risk_label
        print(  # noqa: T201
            f"{printable(result.event_time)}  {printable(result.patient_id):<12}  risk {risk}  label {label}"
            f"  {patient.direction}".rstrip()
        )

    @override
    def refresh(self, notes: str, quiet: float) -> None:
        """Flush stdout, for a log."""
        sys.stdout.flush()
        self._silence.lasts(quiet)


class LiveTable(Output):
    """A full-screen table of patients by current risk; its last state stays on the terminal."""

    def __init__(self, console: Console, topic: str, *, min_risk: float | None) -> None:
        self._console = console
        self._topic = topic
        self._min_risk = min_risk
        self._board = Board()
        self._results = 0
        self._notes = ""
        self._quiet = 0.0
        self._next_frame = 0.0
        self._live = Live(console=console, screen=True, auto_refresh=False)

    @override
    def __enter__(self) -> Self:
        self._live.start()
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._console.print(self._frame(spare=2))  # so that the prompt comes below

    @override
    def add(self, result: RiskResult, message: Message, *, wanted: bool) -> None:
        """Take the result; a patient whose risk has fallen leaves the table."""
        self._board.add(result, _published(message))
        self._results += 1

    @override
    def refresh(self, notes: str, quiet: float) -> None:
        """Draw a frame when one is due."""
        self._notes, self._quiet = notes, quiet
        now = time.monotonic()
        if now >= self._next_frame:
            self._live.update(self._frame(), refresh=True)
            self._next_frame = now + 1 / FRAMES_PER_S

    def _frame(self, *, spare: int = 0) -> Group:
        patients = self._board.ranked(self._min_risk)
        room = max(1, self._console.height - _AROUND_TABLE - spare)
        left = len(patients) - room
        below = f"+ {left:,} more   " if left > 0 else ""
        quiet = f"nothing for {age(self._quiet)}   " if self._quiet >= QUIET_S else ""
        results = f"{self._results:,} results of {len(self._board):,} patients"
        risks = "" if self._min_risk is None else f", risk of at least {self._min_risk:g}"
        return Group(
            _line((results, "bold"), (f"{risks} on {self._topic}", "dim")),
            Text(),
            _table(patients[:room], width=self._console.width),
            Text(),
            _line((quiet, "yellow"), (below + self._notes, "dim")),
        )


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*parts, overflow="ellipsis", no_wrap=True)


def _table(patients: list[PatientRisk], *, width: int) -> Table:
    """Whole cells on a terminal of 52 columns or more, without the event time if it does not fit."""
    event_time = ["event time"] if width >= _WITH_TIME else []
    ages = ["oldest value"] if width >= _WIDE and any(one.result.history for one in patients) else []
    columns = ["patient", "risk", "label", "trend", *ages, *event_time, "seen"]
    name, line = (16, 12) if ages else (24, 24) if width >= _WIDE else (16, 0)
    # Besides number, label, arrow, times and gaps.
    bar = width - name - line - (56 if event_time else 34) - (OLDEST + 2 if ages else 0)
    table = make_table(*columns, right={"seen"})
    now = time.time()
    for patient in patients:
        cells = _cells(patient, now - patient.at, name=name, bar=max(0, bar), line=line)
        table.add_row(*(cells[column] for column in columns))
    return table


def _cells(patient: PatientRisk, seen: float, *, name: int, bar: int, line: int) -> dict[str, Text]:
    """A patient's row, dimmed if it is old."""
    result = patient.result
    cells = {
        "patient": Text(shortened(result.patient_id, name)),
        "risk": risk_bar(result, bar),
        "label": Text("-" if result.risk_label is None else str(result.risk_label)),
        "trend": Text.assemble("  ", arrow(patient), " ", sparkline(patient.history, line)),
        "oldest value": oldest(result),
        "event time": Text(_second(result.event_time)),
        "seen": Text(f"{age(seen)} ago"),
    }
    for cell in cells.values() if seen >= OLD_S else ():
        cell.stylize("dim not bold")
    return cells


def _second(event_time: str) -> str:
    """A time of any zone and precision as 2026-01-05T08:30:00Z; any other text unchanged."""
    try:
        time_ = datetime.fromisoformat(event_time).astimezone(UTC)
    except (ValueError, OverflowError):
        return shortened(event_time, 20)
    return time_.isoformat(timespec="seconds").replace("+00:00", "Z")


def _published(message: Message) -> float:
    """When the result was produced, in Unix seconds; now, if the topic has no timestamps."""
    _, milliseconds = message.timestamp()
    return milliseconds / 1000 if milliseconds > 0 else time.time()


def _forget_stdout() -> None:
    """Discard what is buffered: the reader has gone, as `head` does, and that is fine."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
