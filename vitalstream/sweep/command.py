"""`vitalstream sweep`: checks its options, measures, and reports."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from broker.errors import SettingsError, VitalstreamError
from broker.settings import Settings
from consumer import model as models
from consumer.stop import Stop
from real_time.sweep import ChunkCost, Measurement
from real_time.usable import Model
from schemas.decoding import make_decoder
from vitalstream.layouts import PLAIN, readers
from vitalstream.sweep.plot import draw, require_plot
from vitalstream.sweep.report import CORE, END_TO_END, Report
from vitalstream.sweep.rows import Messages, load_frame, load_messages, load_rows, written
from vitalstream.worker_process import WorkerError

ROUNDS: Final = 5
ROWS, KAFKA_ROWS = 20_000, 100_000
_LARGEST: Final = 100_000  # what --chunk-size takes

Begin = Callable[[str], None]
"""Called with what is being measured."""


class ModelRaisedError(VitalstreamError):
    """The model can't score the rows of the sweep."""


def sweep(
    settings: Settings,
    *,
    data: Path | None,
    layout: str,
    all_variables: bool,
    chunk_sizes: str,
    rows: int | None,
    seconds: float,
    kafka: bool,
    plot: Path | None,
    json: bool,
) -> None:
    """Measure each chunk size, then print a table and a recommendation; after an interrupt, the results so far.

    Raises:
        SettingsError: the sizes, the model, the rows or the plot's path can't be used.
        ModelRaisedError: the model can't score the rows.
        VitalstreamError: with `kafka`, the worker, the brokers or the audit failed.
    """
    stop = Stop()
    stop.listen(grace=False)
    rows = rows or (KAFKA_ROWS if kafka else ROWS)
    sizes = parse_sizes(chunk_sizes, rows=rows)
    if data is None and layout != PLAIN:
        raise SettingsError("--format describes the file given by --data; give one")
    if settings.schema_registry is not None and settings.schema_subject is None:
        # The topics of --kafka have other names than the topic that these schemas belong to.
        settings = settings.model_copy(update={"schema_subject": f"{settings.input_topic}-value"})
    if plot is not None:
        require_plot(plot)
    model = models.load(settings)
    how = readers(layout, all_variables=all_variables, keep_going=layout == PLAIN)
    decode = make_decoder(settings, model)
    if decode.mapping is None and settings.value_format == "json":
        messages = load_rows(data, how, features=model.features, rows=rows)
    elif data is None:
        messages = written(settings, load_rows(None, how, features=model.features, rows=rows))
    else:
        messages = load_messages(data, decode, rows=rows, value_format=settings.value_format)
    run = _end_to_end if kafka else _core
    report = run(settings, model, messages, sizes, seconds=seconds, stop=stop)
    if plot is not None and report.costs:
        draw(plot, report.costs, throughput=report.what, plain=report.plain)
    if json:
        typer.echo(orjson.dumps(report.document()).decode())
        return
    if report.costs:
        Console().print(report.table())
    typer.echo(report.lines())


def parse_sizes(text: str, *, rows: int) -> list[int]:
    """The chunk sizes of a comma-separated list, ascending.

    Raises:
        SettingsError: one is not a size, or larger than half of `rows`.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= _LARGEST for word in words):
        raise SettingsError(f"--chunk-sizes: sizes are numbers from 1 to {_LARGEST:,}, such as 1,10,100")
    sizes = sorted({*map(int, words)})
    if 2 * sizes[-1] > rows:
        raise SettingsError(
            f"--chunk-sizes: {sizes[-1]:,} needs at least {2 * sizes[-1]:,} rows to measure with, not {rows:,}; "
            "raise --rows or leave that size out"
        )
    return sizes


def _core(
    settings: Settings,
    model: Model,
    messages: Messages,
    sizes: Sequence[int],
    *,
    seconds: float,
    stop: Stop,
) -> Report:
    """Measure scoring alone, the fast path and predict_proba in turns."""
    frame = load_frame(messages, make_decoder(settings, model))
    if len(frame) < sizes[-1]:
        raise SettingsError(
            f"--data: only {len(frame):,} rows can be scored, too few for a chunk of {sizes[-1]:,}"
        )
    scorer = model.scorer
    scored = [Measurement(frame, size, scorer) for size in sizes]
    plain = [Measurement(frame, size, scorer.asked) for size in sizes] if scorer.is_fast else []
    steps = [step for size in zip(scored, plain, strict=True) for step in size] if plain else scored
    with _progress(ROUNDS * len(steps)) as begin, threadpool_limits(limits=1):
        for step in ROUNDS * steps:
            if stop.requested:
                break
            begin(f"chunk size {step.chunk_size:,}")
            _round(step, seconds / ROUNDS)
    return Report(
        what=CORE,
        model=model.sha256,
        rows=len(frame),
        costs=_costs(scored),
        plain=_costs(plain),
        interrupted=stop.requested,
    )


def _end_to_end(
    settings: Settings,
    model: Model,
    messages: Messages,
    sizes: Sequence[int],
    *,
    seconds: float,
    stop: Stop,
) -> Report:
    """Measure a worker process for each size on a real Kafka."""
    from vitalstream.sweep import end_to_end

    costs: list[ChunkCost] = []
    with TemporaryDirectory(prefix="vitalstream-sweep-") as directory, _progress(1 + len(sizes)) as begin:
        try:
            begin(f"publishing {len(messages):,} rows")
            with end_to_end.backlog(settings, messages, stopped=lambda: stop.requested) as own:
                for size in sizes:
                    if stop.requested:
                        break
                    begin(f"chunk size {size:,}")
                    measure = functools.partial(
                        end_to_end.measure, own, size, rows=len(messages), seconds=seconds
                    )
                    costs += measure(directory=Path(directory), stopped=lambda: stop.requested)
        except WorkerError as error:
            typer.echo(error.log, err=True)
            raise
    return Report(
        what=END_TO_END, model=model.sha256, rows=len(messages), costs=costs, interrupted=stop.requested
    )


def _round(step: Measurement, seconds: float) -> None:
    try:
        step.run(seconds)
    except Exception as error:  # a model may raise anything, and its text may quote the rows
        raise ModelRaisedError(
            f"the model raised {type(error).__name__} on a chunk of {step.chunk_size:,} rows; "
            "use --data with rows that it can score"
        ) from None


def _costs(measurements: Sequence[Measurement]) -> list[ChunkCost]:
    return [cost for cost in (one.cost() for one in measurements) if cost is not None]


@contextmanager
def _progress(total: int) -> Iterator[Begin]:
    """A bar on stderr where that is a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=total)
        done = itertools.count()
        yield lambda what: bar.update(task, completed=next(done), description=what)
