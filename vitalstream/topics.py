"""`vitalstream topics`: makes or checks the four topics."""

from typing import Any

import orjson
import typer

from broker.settings import Settings
from broker.topics import check_topics, create_topics


def create(settings: Settings, *, partitions: int, replication_factor: int, json: bool) -> None:
    """Make the topics that are missing and print what was done to each."""
    made = create_topics(settings, partitions=partitions, replication_factor=replication_factor)
    if json:
        _print_json(dict(made))
        return
    for name, done in made:
        typer.echo(f"{name}: {'created' if done == 'created' else 'was there already'}")


def check(settings: Settings, *, json: bool) -> None:
    """Print what differs from `topics create`; ends with code 1 when something of it stops or loses results."""
    findings = check_topics(settings)
    if json:
        _print_json({"findings": findings})
    for finding in findings if not json else ():
        typer.echo(f"{finding.level}: {finding.topic} {finding.message}")
    if not findings and not json:
        typer.echo("all four topics are as they should be")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value).decode())
