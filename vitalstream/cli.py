"""The `vitalstream` command. It reads options, hands them to a room, and prints; the rooms decide.

What a command needs is imported inside it, so that `--help` answers at once.
"""

import sys
from typing import TYPE_CHECKING

import typer

from broker.errors import VitalstreamError
from vitalstream.options import Json, with_settings

if TYPE_CHECKING:
    from broker.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Score a Kafka topic of patient vitals with a scikit-learn model, exactly once. Not a medical device.",
    epilog="Each setting is a flag, else VITALSTREAM_<NAME>, else in the TOML file given by --config.",
)
topics_app = typer.Typer(no_args_is_help=True, help="Make or check the four topics.")
model_app = typer.Typer(no_args_is_help=True, help="Pin, inspect or make a model file.")
app.add_typer(topics_app, name="topics")
app.add_typer(model_app, name="model")

TOPICS = ("input_topic", "output_topic", "metrics_topic", "dead_letter_topic")


def main() -> None:
    """Run the command; an error raised on purpose becomes one line on stderr and its exit code."""
    try:
        app()
    except VitalstreamError as error:
        sys.stderr.write(f"vitalstream: {error}\n")
        sys.exit(error.exit_code)


@app.command()
@with_settings(
    "model", "bootstrap_servers", "group", *TOPICS, "chunk_size", "max_wait_ms", "commit_interval_ms",
    "threshold", "delivery", "instance", "workers", "until_idle",
)  # fmt: skip
def consume(settings: "Settings", *, json: Json = False) -> None:
    """Score the input topic, one risk result per message, exactly once, until stopped.

    Start it as often as you like with the same --group: Kafka shares the partitions out. SIGTERM or Ctrl-C
    finishes the current chunk, commits it and leaves the group.
    """
    from vitalstream.work import run_workers

    run_workers(settings, json=json)
