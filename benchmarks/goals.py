"""The goals, each a ratio or a limit within one run, and whether a record meets them."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks import contender as c
from benchmarks import formats, nested
from benchmarks.fitted import HGB, LR, LR_FULL, LR_LAST, LR_SMALL, PLAIN_RF, RF
from benchmarks.record import Record, middle, pick, ratio

AT_LEAST: Final = "≥"
AT_MOST: Final = "≤"
_TIMES: Final = "\N{MULTIPLICATION SIGN}"

_OF_PASS: Final = (
    (c.WORKER, LR, 10, 0.40),
    (c.WORKER, LR, 100, 0.55),
    (c.WORKER, LR, 1000, 0.65),
    (c.WORKER, HGB, 100, 0.43),
    (c.WORKER, HGB, 1000, 0.50),
    (c.WORKER_PYTHON, LR, 100, 0.32),
    (c.WORKER_PYTHON, LR, 1000, 0.42),
)
_OF_FLAT: Final = (
    ("renamed fields", 1.1),
    ("nested, with units", 2),
    ("Avro, fields that may be null", 3),
    ("FHIR, one Observation", 2),
    ("HL7, an ORU^R01 of 8 OBX", 4),
    ("FHIR, a Bundle of 8 Observations", 8),
)
_PEERS: Final = tuple(peer.name for peer in c.PEERS)


@dataclass(frozen=True)
class Goal:
    """A figure and its limit."""

    what: str
    sign: str
    bound: float
    found: float | None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """None if it was not measured."""
        if self.found is None:
            return None
        return self.found >= self.bound if self.sign == AT_LEAST else self.found <= self.bound

    @property
    def word(self) -> str:
        """Met, missed or not measured."""
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]

    def cells(self) -> tuple[str, str, str, str]:
        """A row of the table."""
        found = "-" if self.found is None else f"{self.found:,.4g}{self.unit}"
        return self.what, f"{self.sign} {self.bound:g}{self.unit}", found, self.word


def goals(record: Record) -> list[Goal]:
    """All goals, as far as `record` has the figures for them."""
    return [*_throughput(record.get("throughput", [])), *_latency(record.get("latency", [])), *_rest(record)]


def _case(contender: c.Contender, model: str, chunk: int) -> Record:
    return {"contender": contender.name, "model": model, "chunk": chunk}


def _throughput(runs: list[Record]) -> Iterator[Goal]:
    def compared(over: Record, under: Record) -> float | None:
        return ratio(runs, "rows_per_s", over, under)

    limit = _case(c.PASS, LR, 1000)
    for worker, model, chunk, bound in _OF_PASS:
        found = compared(_case(worker, model, chunk), limit)
        kernel = ", without the kernel" if worker is c.WORKER_PYTHON else ""
        yield Goal(f"{model}, chunk {chunk}{kernel}, of pass-through", AT_LEAST, bound, found)
    for model, bound in ((LR, 2.5), (HGB, 3.0)):
        yield Goal(
            f"{model}, best chunk, of the fastest peer", AT_LEAST, bound, _of_fastest(runs, model), _TIMES
        )
    for chunk, bound in ((100, 12.0), (1000, 6.0)):
        found = compared(_case(c.WORKER, LR, chunk), _case(c.TEXTBOOK, LR, chunk))
        yield Goal(f"LR, chunk {chunk}, of the textbook loop at {chunk}", AT_LEAST, bound, found, _TIMES)
    for chunk, bound in ((100, 6.0), (1000, 2.0)):
        found = compared(_case(c.WORKER, RF, chunk), _case(c.WORKER, PLAIN_RF, chunk))
        yield Goal(f"RF, chunk {chunk}, of plain predict_proba in the worker", AT_LEAST, bound, found, _TIMES)
    for chunk in (100, 1000):
        found = compared(_case(c.WORKER, LR, chunk), _case(c.WORKER_ALO, LR, chunk))
        yield Goal(f"LR, chunk {chunk}, exactly once of at least once", AT_LEAST, 0.9, found)
    for model, chunk in ((LR, 100), (LR, 1000), (HGB, 100), (HGB, 1000)):
        found = compared(_case(c.WORKER, model, chunk), _case(c.BARE, model, chunk))
        yield Goal(f"{model}, chunk {chunk}, of the bare prototype loop", AT_LEAST, 1.5, found)


def _of_fastest(runs: list[Record], model: str) -> float | None:
    """The ratio of medians: the worker's best chunk size to the best peer."""
    ours = [middle(runs, "rows_per_s", **_case(c.WORKER, model, chunk)) for chunk in (100, 1000)]
    chunks = (1, 100, 1000)
    theirs = [
        middle(runs, "rows_per_s", contender=peer, model=model, chunk=chunk)
        for peer in _PEERS
        for chunk in chunks
    ]
    return max(filter(None, ours)) / max(filter(None, theirs)) if any(ours) and any(theirs) else None


def _latency(runs: list[Record]) -> Iterator[Goal]:
    at_200 = {one.name: {"contender": one.name, "rate": 200} for one in (c.WORKER, c.PASS_DRAIN)}
    ours, limit = at_200.values()
    more = [
        one["p50"] - other["p50"]
        for one in pick(runs, **ours)
        for other in pick(runs, **limit, round=one["round"])
    ]
    found = median(more) if more else None
    yield Goal("latency at 200/s, p50, above pass-through per drain", AT_MOST, 1.5, found, " ms")
    yield Goal(
        "latency at 200/s, p99, of pass-through per drain",
        AT_MOST,
        1.25,
        ratio(runs, "p99", ours, limit),
        _TIMES,
    )
    fast = middle(runs, "p99", contender=c.WORKER.name, rate=10_000)
    yield Goal("latency at 10,000/s, p99", AT_MOST, 60, fast, " ms")


def _rest(record: Record) -> Iterator[Goal]:
    for chunk, bound in ((100, 0.25), (1000, 0.2)):
        runs = pick(record.get("stages", []), model=LR, chunk=chunk)
        found = runs[0]["us"].get("decode") if runs else None
        yield Goal(f"decoding flat JSON, chunk {chunk}", AT_MOST, bound, found, " µs per row")
    workers, long = record.get("workers", []), record.get("backlog", {})
    pair = ratio(
        workers,
        "cpu_us",
        {"contender": c.WORKER_PAIR.name, "model": LR},
        {"contender": c.WORKER.name, "model": LR},
    )
    yield Goal("two workers, CPU per row, of one's", AT_MOST, 1.15, pair, _TIMES)
    many = ratio(record.get("partitions", []), "rows_per_s", {"partitions": 50}, {"partitions": 4})
    yield Goal("LR, chunk 100, 50 partitions, of 4", AT_LEAST, 0.8, many)
    yield Goal("memory with 5 million waiting, peak", AT_MOST, 300, long.get("peak_mb"), " MB")
    memory = long.get("memory_mb")
    grown = max(memory[5:]) - max(memory[:5]) if memory else None
    yield Goal("memory growth, second half over first", AT_MOST, 10, grown, " MB")
    for model, bound in ((LR, 1.2), (HGB, 1.4)):
        found = middle(record.get("starts", []), "seconds", contender=c.WORKER.name, model=model)
        yield Goal(f"start to first result, {model}", AT_MOST, bound, found, " s")


def format_goals(record: Record) -> Iterator[Goal]:
    """The goals for decoding other formats, each against flat JSON read in the same way."""
    found = {one["case"]: one["ratio"] for one in record.get("formats", [])}
    for case, bound in _OF_FLAT:
        yield Goal(f"{case}, in Python", AT_MOST, bound, found.get(case), _TIMES)
    flat = found.get(f"flat JSON, {formats.KERNEL}")
    for case, bound in _OF_FLAT:
        if (of := found.get(f"{case}, {formats.KERNEL}")) and flat:
            yield Goal(f"{case}, {formats.KERNEL}", AT_MOST, bound, of / flat, _TIMES)
    kinds = {"messages": nested.NESTED}, {"messages": nested.FLAT}
    of_flat = ratio(record.get("nested", []), "rows_per_s", *kinds)
    yield Goal("worker's rows/s, LR, chunk 1000, nested with units", AT_LEAST, 0.8, of_flat, _TIMES)


def state_goals(record: Record) -> Iterator[Goal]:
    """The goals for models with a history."""
    found = record.get("state", {})
    runs = found.get("throughput", [])
    recipes = ((LR_SMALL, "small", 0.6, 1.5, 6, 400), (LR_FULL, "full", 0.35, 4, 6, 10_000))
    for model, name, share, *_ in recipes:
        for chunk in (100, 1000):
            of = ratio(runs, "rows_per_s", _case(c.WORKER, model, chunk), _case(c.WORKER, LR, chunk))
            yield Goal(f"LR, {name} recipe, chunk {chunk}, of the same without history", AT_LEAST, share, of)
    for model, name, _, us, seconds, size in recipes:
        kernel, restored = found.get("kernel", {}).get(model, {}), found.get("restore", {}).get(model, {})
        count = f"{restored['patients']:,}" if restored else "all"
        yield Goal(f"{name} recipe, fold and undo log, per row", AT_MOST, us, kernel.get("us"), " µs")
        yield Goal(f"{name} recipe, half of all rows of one patient", AT_MOST, 1.3, kernel.get("hot"), _TIMES)
        yield Goal(f"{name} recipe, memory per patient", AT_MOST, size, kernel.get("bytes"), " B")
        yield Goal(
            f"{name} recipe, restore of {count} patients", AT_MOST, seconds, restored.get("seconds"), " s"
        )
    for peer, chunk, bound in (
        (c.QUIX_STATE, 1, 10.0),
        (c.FAUST_TABLE, 1, 2.0),
        (c.BYTEWAX_STATE, 1000, 2.0),
        (c.PATHWAY_STATE, 1000, 2.0),
    ):
        of = ratio(runs, "rows_per_s", _case(c.WORKER, LR_LAST, 1000), _case(peer, LR_LAST, chunk))
        yield Goal(f"last values and ages, of {peer.name}", AT_LEAST, bound, of, _TIMES)
    gap = found.get("takeover", {}).get("gap_s")
    yield Goal("a worker with 100,000 patients is killed: gap in results", AT_MOST, 14, gap, " s")
