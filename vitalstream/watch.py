"""`vitalstream watch`: follows the risk topic, as a live table, as lines, or as NDJSON."""

import os
import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import typer
from confluent_kafka import Message
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.settings import Settings
from consumer.stop import Stop
from schemas.reading import MessageError
from schemas.results import RiskResult, decode_result
from vitalstream.board import (
    Board,
    PatientRisk,
    arrow,
    direction,
    printable,
    reaches,
    risk_bar,
    sparkline,
    unscored,
)
from vitalstream.follow import Follower

PATIENCE_S = 0.1
FRAMES_PER_S = 8

_AROUND_TABLE = 6  # lines: title, header, rules, "more", notes
_WIDE = 110  # columns from which on there is room to spare
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


class Output(ABC):
    """Where results go. Leaving it as a context manager ends it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def add(self, result: RiskResult, message: Message, *, wanted: bool) -> None:
        """Take in a result, to be shown only if `wanted`."""

    @abstractmethod
    def refresh(self, notes: str) -> None:
        """Called after each read, several times a second."""


def watch(
    settings: Settings, *, from_beginning: bool, limit: int | None, min_risk: float | None, json: bool
) -> None:
    """Show results until stopped, idle, or `limit` of them (with at least `min_risk`) were shown."""
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
                    output, stop, limit=limit, min_risk=min_risk, until_idle=settings.until_idle
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
        limit: int | None,
        min_risk: float | None,
        until_idle: float | None,
    ) -> None:
        self._output = output
        self._stop = stop
        self._left = limit
        self._min_risk = min_risk
        self._until_idle = until_idle
        self.skipped = 0
        self._first_skipped = ""

    @property
    def notes(self) -> str:
        """What was skipped, if anything."""
        if not self.skipped:
            return ""
        values = "1 value" if self.skipped == 1 else f"{self.skipped:,} values"
        return f"skipped {values} that are no results, the first at {self._first_skipped}"

    def follow(self, follower: Follower) -> None:
        """Read and show until it ends."""
        active_at = time.monotonic()
        while not self._stop.requested and self._left != 0:
            messages = follower.read(PATIENCE_S)
            for message in messages:
                self._show(message)
                if self._left == 0:
                    break
            self._output.refresh(self.notes)
            now = time.monotonic()
            active_at = now if messages else active_at
            if self._until_idle is not None and now - active_at >= self._until_idle:
                return

    def _show(self, message: Message) -> None:
        try:
            result = decode_result(message.value())
        except MessageError:
            self.skipped += 1
            place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
            self._first_skipped = self._first_skipped or place
            return
        wanted = reaches(result, self._min_risk)
        self._output.add(result, message, wanted=wanted)
        if wanted and self._left is not None:
            self._left -= 1


class JsonLines(Output):
    """Each value as it stands on the topic, one a line."""

    def add(self, result: RiskResult, message: Message, *, wanted: bool) -> None:
        """Write the value."""
        # Ours has no line breaks; in somebody else's JSON they can only stand between its parts.
        value: Any = message.value()
        if wanted:
            sys.stdout.buffer.write(value.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n")

    def refresh(self, notes: str) -> None:
        """Let the reader at the other end have what was written."""
        sys.stdout.buffer.flush()


class Lines(Output):
    """One line a result, to be read in a log."""

    def __init__(self) -> None:
        self._board = Board()

    def add(self, result: RiskResult, message: Message, *, wanted: bool) -> None:
        """Print the result."""
        patient = self._board.add(result, _published(message))
        if not wanted:
            return
        risk = unscored(result) if result.risk_probability is None else f"{result.risk_probability:.3f}"
        label = "-" if result.risk_label is None else result.risk_label
        trend = "" if result.risk_probability is None else direction(patient.history)
        print(  # noqa: T201
            f"{printable(result.event_time)}  {printable(result.patient_id):<12}  risk {risk}  label {label}"
            f"  {trend}".rstrip()
        )

    def refresh(self, notes: str) -> None:
        """Let a log have what was printed."""
        sys.stdout.flush()


class LiveTable(Output):
    """A table of patients by current risk that fills the terminal; its last state stays when it ends."""

    def __init__(self, console: Console, topic: str, *, min_risk: float | None) -> None:
        self._console = console
        self._topic = topic
        self._min_risk = min_risk
        self._board = Board()
        self._results = 0
        self._notes = ""
        self._next_frame = 0.0
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._console.print(self._frame(spare=2))  # the prompt comes below

    def add(self, result: RiskResult, message: Message, *, wanted: bool) -> None:
        """Take in the result; a patient whose risk has fallen leaves the table."""
        self._board.add(result, _published(message))
        self._results += 1

    def refresh(self, notes: str) -> None:
        """Draw a frame when one is due."""
        self._notes = notes
        now = time.monotonic()
        if now >= self._next_frame:
            self._live.update(self._frame(), refresh=True)
            self._next_frame = now + 1 / FRAMES_PER_S

    def _frame(self, *, spare: int = 0) -> Group:
        patients = self._board.ranked(self._min_risk)
        room = max(1, self._console.height - _AROUND_TABLE - spare)
        left = len(patients) - room
        below = f"+ {left:,} more   " if left > 0 else ""
        return Group(
            Text.assemble(
                (f"risk by patient on {self._topic}", "bold"),
                (f"   {self._results:,} results of {len(self._board):,} patients", "dim"),
                ("" if self._min_risk is None else f", risk from {self._min_risk:g} on", "dim"),
                overflow="ellipsis",
                no_wrap=True,
            ),
            _table(patients[:room], width=self._console.width),
            Text(below + self._notes, "dim", overflow="ellipsis", no_wrap=True),
        )


def _table(patients: list[PatientRisk], *, width: int) -> Table:
    wide = width >= _WIDE
    name, when, line = (24, 24, 24) if wide else (14, 16, 0)
    bar = max(4, width - name - when - line - 39)  # beside number, label, arrow, age and gaps
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("patient", no_wrap=True, width=name)
    table.add_column("risk", no_wrap=True, width=bar + 6)
    table.add_column("label", no_wrap=True, justify="center")
    table.add_column("trend", no_wrap=True, width=line + 5)
    table.add_column("event time", no_wrap=True, width=when)
    table.add_column("age", no_wrap=True, width=5, justify="right")
    now = time.time()
    for patient in patients:
        result = patient.result
        table.add_row(
            Text(printable(result.patient_id, name)),
            risk_bar(result, bar),
            "-" if result.risk_label is None else str(result.risk_label),
            Text.assemble("  ", arrow(patient.history), " ", sparkline(patient.history, line)),
            Text(printable(result.event_time)[:when]),
            age(now - patient.at),
        )
    return table


def age(seconds: float) -> str:
    """A time span in at most four characters: `3 s`, `12 m`, `5 h`, `9 d`."""
    seconds = max(0.0, seconds)
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _published(message: Message) -> float:
    """When the result was produced, in Unix seconds; now, where the topic does not tell."""
    _, milliseconds = message.timestamp()
    return milliseconds / 1000 if milliseconds > 0 else time.time()


def _forget_stdout() -> None:
    """The reader has gone, as `head` does: what is still buffered has nowhere to go, and that is fine."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
