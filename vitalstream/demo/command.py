"""`vitalstream demo`: prepares a run, runs it, and reports the outcome."""

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import orjson
import typer
from rich.console import Console

from broker.errors import VitalstreamError
from broker.settings import Settings
from consumer.stop import Stop
from vitalstream.demo import cluster
from vitalstream.demo.run import Demo
from vitalstream.demo.summary import Summary
from vitalstream.demo.view import View
from vitalstream.demo_model import DemoModel, make_history_model
from vitalstream.worker_process import WorkerError

EMBEDDED: Final = "an embedded broker"


class CheckFailedError(VitalstreamError):
    """Not every message is accounted for exactly once."""


def demo(
    settings: Settings,
    *,
    bootstrap_servers: str | None,
    seconds: float,
    seed: int,
    patients: int,
    rate: float,
    json: bool,
) -> None:
    """Run the whole system for `seconds` of sending, and print a summary with the check.

    Starts a broker of its own unless `bootstrap_servers` is given, here or in `settings`.

    Raises:
        CheckFailedError: after the summary; names the first offenders.
        VitalstreamError: something failed; the worker's last lines are then on stderr.
    """
    stop = Stop()
    stop.listen(grace=False)
    signal.signal(signal.SIGHUP, lambda *_: stop.request())  # a closed terminal leaves no processes
    if bootstrap_servers is None and "bootstrap_servers" in settings.model_fields_set:
        bootstrap_servers = settings.bootstrap_servers
    where = bootstrap_servers or EMBEDDED
    console = Console(stderr=json)
    live = (sys.stderr if json else sys.stdout).isatty() and not console.is_dumb_terminal
    view = View(console, live=live)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="vitalstream-demo-")))
        model = _model(view, directory / "model.joblib", seed)
        with view.step(f"five topics on {where}"):
            place = (
                cluster.given(settings, bootstrap_servers)
                if bootstrap_servers
                else cluster.embedded(settings)
            )
            own = stack.enter_context(place).model_copy(update={"model": directory / "model.joblib"})
        run = Demo(
            own,
            view=view,
            broker=where,
            stopped=lambda: stop.requested,
            seconds=seconds,
            patients=patients,
            seed=seed + 2,  # other patients than the training data's
            rate=rate,
        )
        try:
            run.run(directory)
        except WorkerError as error:
            typer.echo(error.log, err=True)
            raise
        summary = _summary(run, model, rate=rate, broker=where, embedded=not bootstrap_servers)
        _print(console, summary, json=json)
        if not summary.ok:
            offenders = "; ".join(summary.verdict.offenders())
            raise CheckFailedError(f"not every message is accounted for exactly once: {offenders}")


def _model(view: View, path: Path, seed: int) -> DemoModel:
    with view.step("a model from simulated patients:") as done:
        model = make_history_model(path, seed=seed)
        done.append(f"{model.rows:,} readings, AUROC {model.auroc:.2f}")
    return model


def _summary(run: Demo, model: DemoModel, *, rate: float, broker: str, embedded: bool) -> Summary:
    return Summary(
        verdict=run.accounts.verdict(),
        dead_letters=dict(run.reader.dead_letters),
        waits=run.accounts.waits(since=run.started_at),
        seconds=run.seconds_taken,
        rate=rate,
        latency_ms=run.reader.latency_ms,
        rows_per_chunk=run.reader.rows_per_chunk,
        model=model,
        broker=broker,
        embedded=embedded,
        interrupted=run.interrupted,
    )


def _print(console: Console, summary: Summary, *, json: bool) -> None:
    if json:
        typer.echo(orjson.dumps(summary.as_json()).decode())
    else:
        console.print()
        console.print(summary.table())
