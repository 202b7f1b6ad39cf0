"""The tables on the performance pages, written between their markers from a record."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import contender as c
from benchmarks.fitted import HGB, LR, PLAIN_RF, RF
from benchmarks.goals import Goal, format_goals, goals, state_goals
from benchmarks.record import Record, middle, pick, ratio

DOCS: Final = tuple(
    Path("docs", f"{page}.md")
    for page in ("performance", "peers", "latency", "costs", "scaling", "history-semantics")
)
_MARKED: Final = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
# Pictures drawn by plots.py, placed after these tables.
_PICTURES: Final = {
    "stages": ["![CPU by stage](img/stages.png)"],
    "throughput": ["![Throughput of all contenders](img/throughput.png)"],
    "latency": ["![Latency by rate](img/latency.png)"],
}
_NEEDED: Final = (1_000, 100_000, 10_000_000)  # messages per second
_OURS: Final = (c.PASS, c.BARE, c.WORKER, c.WORKER_PYTHON, c.WORKER_ALO, c.TEXTBOOK, c.NAIVE)
_ORDER: Final = (*_OURS, *c.PEERS)


def write(record: Record, docs: Iterable[Path] = DOCS) -> list[str]:
    """Write all tables that `record` has the figures for; returns the names of the others."""
    lacking: list[str] = []
    for path in docs:
        text = path.read_text(encoding="utf-8")
        path.write_text(_MARKED.sub(lambda found: _filled(found, record, lacking), text), encoding="utf-8")
    return lacking


def _filled(found: re.Match[str], record: Record, lacking: list[str]) -> str:
    name = found[2]
    rows = TABLES[name](record)
    if len(rows) <= 1:
        lacking.append(name)
        return found[0]
    parts = [markdown(rows), *_PICTURES.get(name, ())]
    return "\n\n".join([found[1].rstrip(), *parts, found[3]])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its header."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _thousands(value: float | None) -> str:
    if value is None:
        return "-"
    return (
        f"{value / 1e3:,.0f}k"
        if value >= 10_000
        else f"{value / 1e3:,.1f}k"
        if value >= 1_000
        else f"{value:,.0f}"
    )


def _plain(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _range(runs: list[Record], what: str, **wanted: object) -> str:
    found = [one[what] for one in pick(runs, **wanted)]
    if not found:
        return "-"
    return f"{_thousands(middle(runs, what, **wanted))} ({_thousands(min(found))}-{_thousands(max(found))})"


def machine(record: Record) -> list[Sequence[str]]:
    """What the run was measured on."""
    about = record.get("machine", {})
    rows: list[Sequence[str]] = [("what", "value")]
    names = (
        "date",
        "cpu",
        "cores",
        "memory_gb",
        "system",
        "python",
        "kafka",
        "java",
        "rows",
        "message_bytes",
    )
    rows += [(name.replace("_", " "), str(about[name])) for name in names if name in about]
    if about:
        rows.append(
            ("packages", ", ".join(f"{name} {version}" for name, version in about["packages"].items()))
        )
        rows.append(("peers", ", ".join(about["peers"].values())))
    return rows


def goal_table(record: Record) -> list[Sequence[str]]:
    """Each goal, met or missed."""
    return _goals(goals(record))


def state(record: Record) -> list[Sequence[str]]:
    """The goals for models with a history."""
    return _goals([*state_goals(record)])


def decoding(record: Record) -> list[Sequence[str]]:
    """The goals for decoding other formats."""
    return _goals([*format_goals(record)])


def _goals(found: list[Goal]) -> list[Sequence[str]]:
    rows = [goal.cells() for goal in found] if any(goal.found is not None for goal in found) else []
    return [("what", "goal", "measured", ""), *rows]


def throughput(record: Record) -> list[Sequence[str]]:
    """Every contender, model and chunk size."""
    runs = record.get("throughput", [])
    rows: list[Sequence[str]] = [
        ("contender", "model", "chunk", "rows/s: median (range)", "of pass-through", "CPU µs per row", "peak MB",
         "first result, s", "check"),
    ]  # fmt: skip
    for one in _ORDER:
        cases = {(r["model"], r["chunk"]): None for r in runs if r["contender"] == one.name}
        for model, chunk in sorted(cases, key=lambda case: ([LR, HGB, RF, PLAIN_RF].index(case[0]), case[1])):
            rows.append(_throughput_row(runs, one, model, chunk))
    return rows


def _throughput_row(runs: list[Record], one: c.Contender, model: str, chunk: int) -> list[str]:
    wanted = {"contender": one.name, "model": model, "chunk": chunk}
    why = [r["why"] for r in runs if r["contender"] == one.name and "why" in r]
    share = ratio(runs, "rows_per_s", wanted, {"contender": c.PASS.name})
    checks = {r["check"] for r in pick(runs, **wanted)}
    return [
        one.name,
        "-" if one is c.PASS else model,
        str(chunk),
        _range(runs, "rows_per_s", **wanted),
        "-" if share is None else f"{share:.3g}",
        _plain(middle(runs, "cpu_us", **wanted)),
        _plain(middle(runs, "peak_mb", **wanted), 0),
        _plain(middle(runs, "start_s", **wanted)),
        "; ".join(sorted(checks)) or f"did not run: {why[0] if why else 'left out'}",
    ]


def contenders(_: Record) -> list[Sequence[str]]:
    """What each contender is."""
    rows: list[Sequence[str]] = [("contender", "program", "guarantee", "lines a user writes", "version")]
    for one in _ORDER:
        program = (
            f"[{one.program}](../benchmarks/contenders/{one.program})"
            if one.program
            else "`vitalstream consume`"
        )
        rows.append((one.name, program, one.guarantee, str(one.lines), one.version or "-"))
    return rows


def latency(record: Record) -> list[Sequence[str]]:
    """Percentiles by rate."""
    runs = record.get("latency", [])
    rows: list[Sequence[str]] = [
        ("messages/s", "contender", "p50 ms", "p95 ms", "p99 ms", "CPU %", "late", "check")
    ]
    for rate in sorted({one["rate"] for one in runs}):
        for one in (c.PASS_DRAIN, c.WORKER, c.QUIX, c.TEXTBOOK):
            wanted = {"contender": one.name, "rate": rate}
            if found := pick(runs, **wanted):
                figures = [
                    _plain(middle(runs, what, **wanted)) for what in ("p50", "p95", "p99", "cpu_percent")
                ]
                late = str(max(r["late"] for r in found))
                check = "; ".join(sorted({r["check"] for r in found}))
                rows.append((f"{rate:,}", one.name, *figures, late, check))
            elif why := [r["why"] for r in runs if r["contender"] == one.name and r["rate"] == rate]:
                rows.append((f"{rate:,}", one.name, "-", "-", "-", "-", "-", f"did not run: {why[0]}"))
    return rows


def stages(record: Record) -> list[Sequence[str]]:
    """CPU by stage."""
    names = ("collect", "decode", "score", "encode", "other", "produce", "commit", "Kafka client's threads")
    rows: list[Sequence[str]] = [("model", "chunk", *names, "all")]
    for one in pick(record.get("stages", [])):
        figures = [_plain(one["us"].get(name), 2) for name in names]
        rows.append((one["model"], str(one["chunk"]), *figures, _plain(sum(one["us"].values()), 2)))
    return rows


def formats(record: Record) -> list[Sequence[str]]:
    """Decoding, by shape."""
    found = (
        (one["case"], _plain(one["us"], 2), _plain(one["ratio"], 2)) for one in record.get("formats", [])
    )
    return [("messages", "µs per message", "against flat JSON"), *found]


def nested(record: Record) -> list[Sequence[str]]:
    """A whole worker, by shape of its messages."""
    runs = record.get("nested", [])
    rows: list[Sequence[str]] = [("messages", "rows/s: median (range)", "CPU µs per row", "check")]
    for kind in dict.fromkeys(one["messages"] for one in runs):
        check = "; ".join(sorted({one["check"] for one in pick(runs, messages=kind)}))
        cpu = _plain(middle(runs, "cpu_us", messages=kind), 2)
        rows.append((kind, _range(runs, "rows_per_s", messages=kind), cpu, check))
    return rows


def starts(record: Record) -> list[Sequence[str]]:
    """Start to first result."""
    runs = record.get("starts", [])
    rows: list[Sequence[str]] = [("contender", "model", "seconds: median", "least", "most")]
    for name, model in dict.fromkeys((one["contender"], one["model"]) for one in runs):
        found = [one["seconds"] for one in pick(runs, contender=name, model=model)]
        rows.append((name, model, _plain(middle(runs, "seconds", contender=name, model=model), 2),
                     _plain(min(found), 2), _plain(max(found), 2)))  # fmt: skip
    return rows


def backlog(record: Record) -> list[Sequence[str]]:
    """Memory during a long backlog."""
    rows: list[Sequence[str]] = [("messages", "rows/s", "peak MB", "MB at ten times of the run", "check")]
    if one := record.get("backlog"):
        memory = " ".join(f"{mb:.0f}" for mb in one["memory_mb"])
        rows.append(
            (
                f"{one['messages']:,}",
                _thousands(one["rows_per_s"]),
                _plain(one["peak_mb"], 0),
                memory,
                one["check"],
            )
        )
    return rows


def workers(record: Record) -> list[Sequence[str]]:
    """One worker and two."""
    runs = record.get("workers", [])
    rows: list[Sequence[str]] = [
        (
            "model",
            "workers",
            "rows/s: median (range)",
            "worker CPU µs per row",
            "broker CPU µs per row",
            "check",
        )
    ]
    for model in (LR, HGB):
        for one in (c.WORKER, c.WORKER_PAIR):
            wanted = {"contender": one.name, "model": model}
            if found := pick(runs, **wanted):
                figures = [_plain(middle(runs, what, **wanted), 2) for what in ("cpu_us", "broker_us")]
                check = "; ".join(sorted({r["check"] for r in found}))
                rows.append(
                    (
                        model,
                        "1" if one is c.WORKER else "2",
                        _range(runs, "rows_per_s", **wanted),
                        *figures,
                        check,
                    )
                )
    return rows


def partitions(record: Record) -> list[Sequence[str]]:
    """One worker with more partitions."""
    runs = record.get("partitions", [])
    rows: list[Sequence[str]] = [
        ("partitions", "rows/s: median (range)", "worker CPU µs per row", "broker CPU µs per row", "peak MB")
    ]
    for count in sorted({one["partitions"] for one in runs}):
        cpu, broker, peak = (
            middle(runs, what, partitions=count) for what in ("cpu_us", "broker_us", "peak_mb")
        )
        figures = (_plain(cpu, 2), _plain(broker, 2), _plain(peak, 0))
        rows.append((str(count), _range(runs, "rows_per_s", partitions=count), *figures))
    return rows


def coordinator(record: Record) -> list[Sequence[str]]:
    """Transactions per second."""
    rows: list[Sequence[str]] = [("processes", "transactions/s", "each")]
    for one in record.get("coordinator", []):
        each = one["transactions_per_s"] / one["processes"]
        rows.append((str(one["processes"]), _plain(one["transactions_per_s"], 0), _plain(each, 0)))
    return rows


def rebalance(record: Record) -> list[Sequence[str]]:
    """Pauses in the committed results."""
    rows: list[Sequence[str]] = [
        (
            "group.protocol",
            "partitions",
            "a worker",
            "no result at all for, s",
            "no result of some partition for, s",
            "check",
        )
    ]
    for one in record.get("rebalance", []):
        for event, word in (("join_s", "joins"), ("leave_s", "leaves")):
            pause = one[event]
            rows.append((one["protocol"], str(one["partitions"]), word, _plain(pause["any"], 2),
                         _plain(pause["partition"], 2), one["check"]))  # fmt: skip
    return rows


def needed(record: Record) -> list[Sequence[str]]:
    """Workers needed by load: messages per second times CPU per row, at 70 % of a core."""
    runs = record.get("throughput", [])
    rows: list[Sequence[str]] = [
        ("model, chunk", "CPU µs per row", *(f"workers for {n:,}/s" for n in _NEEDED))
    ]
    for model, chunk in ((LR, 100), (LR, 1000), (HGB, 100), (HGB, 1000), (RF, 100), (RF, 1000)):
        us = middle(runs, "cpu_us", contender=c.WORKER.name, model=model, chunk=chunk)
        if us:
            counts = [f"{max(1, -int(-rate * us / 1e6 / 0.7 // 1)):,}" for rate in _NEEDED]
            rows.append((f"{model}, {chunk}", _plain(us, 2), *counts))
    return rows


def auto(record: Record) -> list[Sequence[str]]:
    """`--chunk-size auto`, compared with the best size picked by hand."""
    found: list[dict[str, Any]] = record.get("auto", [])
    if not found:
        return [("",)]
    names = list(dict.fromkeys(name for one in found for name in one))
    return [names, *([f"{one.get(name, '-')}" for name in names] for one in found)]


TABLES: Final[dict[str, Callable[[Record], list[Sequence[str]]]]] = {
    "machine": machine,
    "goals": goal_table,
    "throughput": throughput,
    "contenders": contenders,
    "latency": latency,
    "stages": stages,
    "formats": formats,
    "decoding": decoding,
    "nested": nested,
    "starts": starts,
    "backlog": backlog,
    "workers": workers,
    "partitions": partitions,
    "coordinator": coordinator,
    "rebalance": rebalance,
    "needed": needed,
    "auto": auto,
    "state": state,
}
