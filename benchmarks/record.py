"""A run's record: what was measured, and on what. JSON in benchmarks/results."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from benchmarks.bench import Bench
from benchmarks.contender import PEERS
from broker.jars import KAFKA_VERSION, find_java

HERE: Final = Path(__file__).parent / "results"
FULL: Final = HERE / "bench.json"
_PACKAGES: Final = ("confluent-kafka", "numpy", "orjson", "pandas", "scikit-learn", "vitalstream")
_OPTIONAL: Final = ("numba",)

Record = dict[str, Any]


def machine(bench: Bench) -> Record:
    """When and where it ran, with which versions and messages."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu(),
        "cores": len(_lines("/proc/cpuinfo", "processor")),
        "memory_gb": round(int(_lines("/proc/meminfo", "MemTotal")[0].split()[0]) / 1e6),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kafka": f"{KAFKA_VERSION}, {bench.cluster.source}",
        "java": _java(),
        "packages": {name: version(name) for name in _PACKAGES} | _installed(_OPTIONAL),
        "peers": {peer.name: peer.version for peer in PEERS},
        "rows": bench.rows.source,
        "message_bytes": round(sum(len(value) for _, value in bench.rows.messages(1_000)) / 1_000),
    }


def load(path: Path) -> Record:
    """The record in a file; empty if the file does not exist."""
    return orjson.loads(path.read_bytes()) if path.exists() else {}


def save(path: Path, record: Record) -> None:
    """Write the record in a stable order."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2) + b"\n")


def pick(records: list[Record], **wanted: object) -> list[Record]:
    """The measured records with these values."""
    return [
        one
        for one in records
        if "why" not in one and all(one.get(name) == value for name, value in wanted.items())
    ]


def middle(records: list[Record], what: str, **wanted: object) -> float | None:
    """The median of a figure over rounds; None if there is none."""
    found = [one[what] for one in pick(records, **wanted)]
    return median(found) if found else None


def ratio(records: list[Record], what: str, over: Record, under: Record) -> float | None:
    """The median over rounds of the ratio of two cases in the same round."""
    found = [
        one[what] / other[what]
        for one in pick(records, **over)
        for other in pick(records, **under, round=one.get("round"))
        if other[what]
    ]
    return median(found) if found else None


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            found[name] = "not installed"
    return found


def _cpu() -> str:
    return (_lines("/proc/cpuinfo", "model name") or [platform.machine()])[0]


def _lines(path: str, name: str) -> list[str]:
    lines = [line.partition(":") for line in Path(path).read_text().splitlines()]
    return [value.strip() for key, _, value in lines if key.strip() == name]


def _java() -> str:
    said = subprocess.run([find_java(), "-version"], capture_output=True, text=True, check=False).stderr
    return said.splitlines()[0] if said else "not known"
