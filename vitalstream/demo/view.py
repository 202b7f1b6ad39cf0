"""What the demo shows while it runs: a full-screen view on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from rich import box
from rich.console import Console, ConsoleRenderable
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas.contract import Reason
from schemas.metrics import ChunkMetrics
from schemas.printable import printable
from vitalstream.board import OLDEST, Board, arrow, oldest, risk_bar, sparkline

FRAMES_PER_S: Final = 8
LINE_EVERY_S: Final = 2.0

_SIDE = 31  # columns of the right-hand side
_WIDE = 110  # columns from which on there is room to spare
_WITH_AGES = 66  # columns of the patients from which on the oldest value is shown


@dataclass(frozen=True)
class Scene:
    """One moment of the demo."""

    phase: str
    broker: str
    elapsed: float
    seconds: float
    clock: str  # the ward's time, RFC 3339
    sent: int
    scored: int
    dead_lettered: int
    board: Board
    latest: ChunkMetrics | None
    dead_letters: Mapping[Reason, int]


class View:
    """Draws scenes on a terminal, or prints lines elsewhere."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self.console = console
        self._live = Live(console=console, screen=True, auto_refresh=False) if live else None
        self._next = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    @contextmanager
    def step(self, text: str) -> Iterator[list[str]]:
        """Announce a step of the preparation; what the block adds to the list is shown when the step is done."""
        done: list[str] = []
        if self._live:
            with self.console.status(text):
                yield done
        else:
            yield done
        self.console.print(Text.assemble(("  ✓ ", "green"), " ".join([text, *done])), soft_wrap=True)

    def draw(self, look: Callable[[], Scene]) -> None:
        """Show the scene that `look` returns, if a frame is due."""
        now = time.monotonic()
        if now < self._next:
            return
        if self._live:
            self._live.update(frame(look(), *self.console.size), refresh=True)
            self._next = now + 1 / FRAMES_PER_S
        else:
            line = f"{now - self._began:5.0f} s  {status_line(look())}"
            self.console.print(line, soft_wrap=True, highlight=False)
            self._next = now + LINE_EVERY_S


def status_line(scene: Scene) -> str:
    """The scene in one line."""
    parts = [f"{scene.phase}: sent {scene.sent:,}, scored {scene.scored:,}"]
    parts.append(f"dead letters {scene.dead_lettered:,}")
    if chunk := scene.latest:
        parts.append(f"{chunk.latency_ms:.2f} ms/row, lag {chunk.lag:,}")
    if patients := scene.board.ranked():
        highest = patients[0]
        parts.append(f"highest risk {printable(highest.result.patient_id)} {highest.risk or 0:.3f}")
    return ", ".join(parts)


def frame(scene: Scene, width: int, height: int) -> ConsoleRenderable:
    """The scene for a terminal of this size."""
    layout = Layout()
    layout.split_column(
        Layout(_header(scene, width), size=2),
        Layout(name="body"),
        Layout(_footer(), size=1),
    )
    side = _SIDE + 9 if width >= _WIDE else _SIDE
    layout["body"].split_row(
        Layout(_patients(scene.board, width - side, height - 3)), Layout(name="side", size=side)
    )
    layout["side"].split_column(
        Layout(_messages(scene), size=5), Layout(_chunk(scene.latest), size=7), Layout(_dead_letters(scene))
    )
    return layout


def _header(scene: Scene, width: int) -> Table:
    day, _, clock = scene.clock.partition("T")
    ward = f"ward time {day[5:]} {clock[:5]}" if clock else ""
    bar = ProgressBar(total=scene.seconds, completed=min(scene.elapsed, scene.seconds), width=width // 4)
    header = Table.grid(expand=True)
    header.add_column(no_wrap=True, ratio=1)
    header.add_column(no_wrap=True, justify="right")
    header.add_row(
        Text.assemble((" vitalstream demo", "bold"), (f"  on {scene.broker}", "dim")),
        Text(f"{ward}  {min(scene.elapsed, scene.seconds):.0f} of {scene.seconds:g} s "),
    )
    header.add_row(Text(f" {scene.phase}", "cyan"), bar)
    return header


def _patients(board: Board, width: int, height: int) -> Panel:
    patients = board.ranked()
    room = max(1, height - 3)
    ages = OLDEST + 1 if width >= _WITH_AGES else 0
    free = max(2, width - 26 - ages)  # besides border, gaps, id, number and arrow
    bar = min(40, free // 2)
    line = min(32, free - bar)
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    table.add_column("patient", no_wrap=True, ratio=1)
    table.add_column("risk", no_wrap=True, width=bar + 6)
    table.add_column("trend", no_wrap=True, width=line + 2)
    if ages:
        table.add_column("oldest value", no_wrap=True, width=OLDEST)
    for patient in patients[:room]:
        trend = Text.assemble(arrow(patient), " ", sparkline(patient.history, line))
        name = Text(printable(patient.result.patient_id))
        table.add_row(name, risk_bar(patient.result, bar), trend, *([oldest(patient.result)] if ages else []))
    left = len(patients) - room
    below = f"+ {left:,} more" if left > 0 else None
    return Panel(table, title="patients by risk", subtitle=below, box=box.ROUNDED, border_style="blue")


def _messages(scene: Scene) -> Panel:
    return _facts(
        "messages",
        [
            ("sent", f"{scene.sent:,}"),
            ("scored", f"{scene.scored:,}"),
            ("dead-lettered", f"{scene.dead_lettered:,}"),
        ],
    )


def _chunk(chunk: ChunkMetrics | None) -> Panel:
    if chunk is None:
        return _facts("latest chunk", [("none yet", "")])
    age = chunk.end_to_end_ms_p50
    return _facts(
        "latest chunk",
        [
            ("rows", f"{chunk.rows:,}, {chunk.closed_by}"),
            ("scoring", f"{chunk.latency_ms:.2f} ms/row"),
            ("", f"{chunk.throughput_rows_per_s:,.0f} rows/s"),
            ("row age", "-" if age is None else f"{age:.0f} ms"),
            ("lag", f"{chunk.lag:,}"),
        ],
    )


def _dead_letters(scene: Scene) -> Panel:
    found = sorted(scene.dead_letters.items(), key=lambda item: (-item[1], item[0]))
    return _facts("dead letters", [(str(reason), f"{count:,}") for reason, count in found])


def _facts(title: str, facts: list[tuple[str, str]]) -> Panel:
    table: Any = Table.grid(expand=True)
    table.add_column(no_wrap=True, style="dim", ratio=1)  # a value is never cut
    table.add_column(no_wrap=True, justify="right")
    for name, value in facts:
        table.add_row(name, value)
    return Panel(table, title=title, box=box.ROUNDED, border_style="blue")


def _footer() -> Table:
    footer = Table.grid(expand=True)
    footer.add_column(no_wrap=True)
    footer.add_column(no_wrap=True, justify="right")
    footer.add_row(
        Text(" simulated patients; not a medical device", "dim"), Text("Ctrl-C ends it early ", "dim")
    )
    return footer
