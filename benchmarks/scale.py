"""Scale: two workers compared with one, more partitions, the transaction coordinator, and a rebalance."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

import numpy as np

from benchmarks.bench import Bench
from benchmarks.contender import EXACTLY, WORKER, WORKER_PAIR, Contender
from benchmarks.fitted import HGB, LR
from benchmarks.latency import START_S, Load, warm
from benchmarks.processes import Process
from benchmarks.results import Reader, Results
from benchmarks.throughput import ROUNDS, Case, Step, run_or_why

PAIR_MESSAGES: Final = (
    3_000_000  # until the second of two workers has its partitions, the first one works alone
)
PARTITIONS: Final = (1, 4, 50)
PROCESSES: Final = (1, 2, 4, 8)
PROTOCOLS: Final = ("classic", "consumer")
BACKLOG: Final = 5_000_000

_LIGHT = Contender("light transactions", "transactions.py", EXACTLY, 1)
_LIGHT_S: Final = 40.0
_REBALANCE_RATE: Final = 2_000
_JOIN_AT, _LEAVE_AT, _END_AT = 8.0, 22.0, 34.0  # seconds after the load starts
_AROUND_S: Final = 10.0  # gaps count for this long after a worker joins or leaves


def workers(bench: Bench, step: Step, *, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One worker and two, with the cheapest model and a more expensive one."""
    records = []
    for number in range(rounds):
        for model, contender in ((m, c) for m in (LR, HGB) for c in (WORKER, WORKER_PAIR)):
            case = Case(contender, model, 100, PAIR_MESSAGES)
            step(f"workers: {case}")
            records.append(
                {"contender": contender.name, "model": model, "round": number, **run_or_why(bench, case)}
            )
    return records


def partitions(bench: Bench, step: Step, *, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One worker with one partition, and with more."""
    records = []
    for number in range(rounds):
        for count in PARTITIONS:
            step(f"partitions: {count}")
            run = bench.throughput(WORKER, LR, 100, partitions=count)
            records.append({"partitions": count, "round": number, **run.as_json()})
    return records


def backlog(bench: Bench, step: Step, *, messages: int = BACKLOG) -> dict[str, Any]:
    """A worker with its defaults and a backlog of millions."""
    step(f"backlog: {messages:,} messages")
    return {"messages": messages, **bench.throughput(WORKER, LR, 100, messages=messages).as_json()}


def coordinator(bench: Bench, step: Step) -> list[dict[str, Any]]:
    """Transactions per second of processes that do nothing else."""
    return [_transactions(bench, processes, step) for processes in PROCESSES]


def _transactions(bench: Bench, processes: int, step: Step) -> dict[str, Any]:
    step(f"coordinator: {processes} processes")
    topic = bench.input(1)
    start_at = {"BENCH_START_AT": str(time.time() + 6 + processes)}
    light = Contender(_LIGHT.name, _LIGHT.program, EXACTLY, 1, options=start_at)
    with ExitStack() as stack:
        started = []
        for _ in range(processes):
            work = stack.enter_context(bench.work(light, LR, 1, topic))
            started.append(stack.enter_context(bench.start(light, work)))
        for process in started:
            process.wait(_LIGHT_S)
        rates = [float(process.tail()) for process in started]
    return {"processes": processes, "transactions_per_s": round(sum(rates), 1)}


def rebalance(bench: Bench, step: Step) -> list[dict[str, Any]]:
    """The pause in committed results when a second worker joins and when it leaves, with 50 partitions."""
    return [_pauses(bench, protocol, step) for protocol in PROTOCOLS]


def _pauses(bench: Bench, protocol: str, step: Step) -> dict[str, Any]:
    step(f"rebalance: group.protocol={protocol}")
    count = max(PARTITIONS)
    topic = bench.cluster.name(f"rebalance-{protocol}")
    bench.cluster.make(topic, partitions=count)
    worker = _with_protocol(protocol)
    messages = int(_REBALANCE_RATE * _END_AT * 1.1) + 1_000
    results = Results(messages)
    with (
        bench.work(worker, LR, 100, topic, partitions=count) as work,
        bench.start(worker, work) as process,
        Reader(bench.cluster, work.output, results) as reader,
    ):
        first = warm(bench, work, process, reader)
        load = Load(bench, topic, rate=_REBALANCE_RATE, seconds=_END_AT, first=first)
        received = np.full(messages, np.nan)
        joined, left = _follow(lambda: bench.start(worker, work), reader, load, received)
        load.join()
    verdict = results.first(load.next).verdict(bench.truth(LR, load.next))
    bench.cluster.delete([topic])
    return {
        "protocol": protocol,
        "partitions": count,
        "join_s": gaps_after(received, results.partition, joined),
        "leave_s": gaps_after(received, results.partition, left),
        "check": verdict,
    }


def _with_protocol(protocol: str) -> Contender:
    options = {} if protocol == "classic" else {"X": f"group.protocol={protocol}"}
    return Contender(WORKER.name, "", EXACTLY, 1, options=options)


def _follow(
    start: Callable[[], AbstractContextManager[Process]], reader: Reader, load: Load, received: Any
) -> tuple[float, float]:
    """Keep reading while a second worker joins and leaves; returns when it did."""
    joined = left = 0.0
    second: Process | None = None
    with ExitStack() as stack:
        load.start()
        began = time.monotonic()
        end = began + _END_AT + START_S
        while time.monotonic() < end and not (load.ended_at and reader.results.read >= load.next):
            number = reader.next()
            if number is not None:
                received[number] = time.time()
            passed = time.monotonic() - began
            if second is None and passed >= _JOIN_AT:
                joined, second = time.time(), stack.enter_context(start())
            elif second is not None and not left and passed >= _LEAVE_AT:
                left = time.time()
                second.ask_to_stop()
    return joined, left


def gaps_after(
    received: Any, partition: Any, since: float, *, seconds: float = _AROUND_S
) -> dict[str, float]:
    """The longest time without any result, and without one from the partition that waited longest."""
    there = (received >= since - 0.5) & (received <= since + seconds)
    times, of = received[there], partition[there]
    longest = [_longest(times[of == one]) for one in np.unique(of)]
    return {"any": round(_longest(times), 3), "partition": round(max(longest, default=0.0), 3)}


def _longest(times: Any) -> float:
    return float(np.diff(np.sort(times)).max(initial=0.0))
