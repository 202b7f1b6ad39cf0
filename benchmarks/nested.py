"""A whole worker with nested messages that name their units, next to the same worker with flat JSON."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson
from typing_extensions import override

from benchmarks.bench import Bench
from benchmarks.contender import WORKER
from benchmarks.fitted import LR
from benchmarks.formats import nest
from benchmarks.rows import Rows
from benchmarks.throughput import ROUNDS, Case, Step, run_or_why
from schemas.contract import STANDARD_FEATURES

FLAT, NESTED = "flat JSON", "nested, with units"
CHUNK: Final = 1000


class NestedRows(Rows):
    """The same rows, each reading an object with its unit; temperatures are in °F."""

    @override
    def message(self, number: int) -> tuple[bytes, bytes]:
        key, value = super().message(number)
        return key, orjson.dumps(nest(orjson.loads(value)))


def measure(bench: Bench, step: Step, *, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One record per run; both kinds of messages take turns."""
    nested = bench.beside("nested", NestedRows())
    # Temperatures were rounded in °F, so scores differ from those of flat messages in the last digits.
    reader = replace(WORKER, options={"mapping": str(_mapping(nested.directory))}, scores=False)
    records = []
    for number in range(rounds):
        for messages, one, contender in ((FLAT, bench, WORKER), (NESTED, nested, reader)):
            step(f"nested, round {number + 1}: {messages}")
            run = run_or_why(one, Case(contender, LR, CHUNK))
            records.append({"messages": messages, "round": number, **run})
    return records


def _mapping(directory: Path) -> Path:
    file = directory / "nested.toml"
    file.write_text("\n".join(_lines()), encoding="utf-8")
    return file


def _lines() -> Iterator[str]:
    yield 'patient_id = { path = "patient.id" }'
    yield 'event_time = { path = "at" }'
    for name in STANDARD_FEATURES:
        yield f"[features.{name}]"
        yield f'path = "vitals.{name}.value"'
        yield f'unit_path = "vitals.{name}.unit"'
        if name == "temperature":
            yield 'units = { F = "[degF]" }'
