"""`vitalstream topics`: creates or checks the topics."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
import typer

from broker.settings import Settings
from broker.topics import (
    DEFAULT_PARTITIONS,
    Finding,
    check_topics,
    create_topics,
    differences,
)


def create(
    settings: Settings, *, partitions: int | None, replication_factor: int, state: bool, json: bool
) -> None:
    """Create the missing topics and print what was done to each.

    Exits with code 1 if an existing topic is not as asked for, or would lose results.
    """
    subjects = _registered(settings)
    made = create_topics(
        settings,
        partitions=DEFAULT_PARTITIONS if partitions is None else partitions,
        replication_factor=replication_factor,
        state=state,
    )
    there = [name for name, done in made if done == "exists"]
    findings = differences(settings, there, partitions=partitions, replication_factor=replication_factor)
    if json:
        _print_json({"topics": dict(made), "subjects": dict(subjects), "findings": findings})
    for name, done in made if not json else ():
        typer.echo(f"{name}: {'created' if done == 'created' else 'already exists'}")
    for subject, outcome in subjects if not json else ():
        typer.echo(f"subject {subject}: {_OUTCOMES[outcome]}")
    _tell(findings, json=json)


_OUTCOMES: Final = {
    "registered": "registered",
    "exists": "was registered already",
    "differs": "holds other schemas and was not changed",
}


def _registered(settings: Settings) -> Sequence[tuple[str, str]]:
    """What became of each subject; empty without a registry."""
    if settings.schema_registry is None:
        return ()
    from consumer import model as models
    from schemas.registering import register_schemas

    model = None if settings.model is None else models.load(settings)
    return [*register_schemas(settings, model)]


def check(settings: Settings, *, state: bool, json: bool) -> None:
    """Print what differs from `topics create`; exits with code 1 if a difference stops scoring or loses results."""
    findings = check_topics(settings, state=state)
    if json:
        _print_json({"findings": findings})
    if not findings and not json:
        typer.echo("all topics are set up correctly")
    _tell(findings, json=json)


def _tell(findings: Iterable[Finding], *, json: bool) -> None:
    for finding in findings if not json else ():
        typer.echo(f"{finding.level}: {finding.topic} {finding.message}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value).decode())
