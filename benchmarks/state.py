"""What histories cost: compared with the same worker without one, in memory, and when they are restored.

    python -m benchmarks --only state

A thousand patients take turns. Each message has seven vitals and the patient's age, as far as they were measured.
"""

import os
import signal
import time
import tracemalloc
from collections.abc import Iterator
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.bench import Bench
from benchmarks.contender import BYTEWAX_STATE, FAUST_TABLE, PATHWAY_STATE, QUIX_STATE, WORKER
from benchmarks.fitted import HISTORIES, LR, LR_FULL, LR_LAST, LR_SMALL
from benchmarks.latency import Load, warm
from benchmarks.results import Reader, Results
from benchmarks.rows import Rows
from benchmarks.scale import gaps_after
from benchmarks.throughput import Case, Step, run_or_why
from broker.roles import TOPICS, Role
from broker.settings import Settings
from consumer.observer import Observer
from consumer.state import make_state
from real_time.history import PatientHistory
from real_time.history.records import StateRecords
from real_time.history.rows import Rows as HistoryRows
from real_time.history.rows import rows_of

ROUNDS: Final = 5
PATIENTS: Final = 1_000
RESTORED: Final = {LR_SMALL: 1_000_000, LR_FULL: 100_000}
CHUNKS: Final = (100, 1000)

CASES: Final = (
    *(Case(WORKER, model, chunk) for chunk in CHUNKS for model in (LR, LR_SMALL, LR_FULL)),
    Case(WORKER, LR_LAST, 1000),
    Case(QUIX_STATE, LR_LAST, 1),
    Case(FAUST_TABLE, LR_LAST, 1),
    Case(BYTEWAX_STATE, LR_LAST, 1000),
    Case(PATHWAY_STATE, LR_LAST, 1000),
)

STEPS: Final = len(CASES) * ROUNDS + 6

_KERNEL_ROWS: Final = 100_000
_BLOCK: Final = 1_000
_PIECE: Final = 10_000
_TAKEN_OVER: Final = 100_000
_LOAD_RATE: Final = 1_000
_KILL_AT: Final = 5.0  # seconds after the load starts
_LOAD_S: Final = 35.0
_READ_S: Final = 120.0
_LATE_S: Final = 10.0
_SESSION_S: Final = 10.0  # the worker's session.timeout.ms


def measure(bench: Bench, step: Step) -> dict[str, Any]:
    """Everything; see `goals` for how it is judged."""
    ward = bench.beside("ward", Rows(patients=PATIENTS))
    return {
        "throughput": [*_throughput(ward, step)],
        "kernel": {model: _kernel(ward.rows, HISTORIES[model], step) for model in RESTORED},
        "restore": {model: _restore(ward, model, count, step) for model, count in RESTORED.items()},
        "takeover": _takeover(bench.beside("large-ward", Rows(patients=_TAKEN_OVER)), step),
    }


def _throughput(ward: Bench, step: Step) -> Iterator[dict[str, Any]]:
    for number in range(ROUNDS):
        for case in CASES:
            step(f"state, round {number + 1}: {case}")
            told = {"contender": case.contender.name, "model": case.model, "chunk": case.chunk}
            yield {**told, "round": number, **run_or_why(ward, case)}


# --- in this process


def _kernel(rows: Rows, history: PatientHistory, step: Step) -> dict[str, Any]:
    """CPU of applying rows with an undo log, in µs per row; the ratio with one hot patient; bytes per patient."""
    step("state: the kernel")
    history = history.fit(rows.frame(_BLOCK))
    even, hot = (_timed(history, Rows(patients=PATIENTS, hot=hot)) for hot in (False, True))
    return {"us": even, "hot": hot / even, "bytes": _bytes(history, rows)}


def _bytes(history: PatientHistory, rows: Rows) -> float:
    """The memory per patient, with many of them."""
    frame = rows.frame(1).loc[[0] * _TAKEN_OVER]
    patients = history.start()
    tracemalloc.start()
    try:
        for start in range(0, _TAKEN_OVER, _BLOCK):
            names = [f"patient-{number}" for number in range(start, start + _BLOCK)]
            patients.advance(frame[:_BLOCK].assign(patient_id=names))
        return tracemalloc.get_traced_memory()[0] / len(patients)
    finally:
        tracemalloc.stop()


def _timed(history: PatientHistory, rows: Rows) -> float:
    frame = rows.frame(_KERNEL_ROWS)
    taken = rows_of(frame, history.start().layout.columns, has_encounters=False)
    blocks = [_part(taken, start) for start in range(0, len(taken), _BLOCK)]
    patients = history.start()
    spent = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for block in blocks:
            patients.apply(block)
            patients.commit()
        spent.append(time.thread_time() - began)
    return 1e6 * median(spent) / len(taken)


def _part(rows: HistoryRows, start: int) -> HistoryRows:
    part = slice(start, start + _BLOCK)
    return HistoryRows(rows.patients[part], rows.times[part], rows.values[part], rows.encounters[part])


# --- restore


def _restore(ward: Bench, model: str, count: int, step: Step) -> dict[str, Any]:
    """Seconds until the state of `count` patients is in memory, restored as the worker does it."""
    step(f"state: restoring {count:,} patients, {model}")
    history = HISTORIES[model].fit(ward.rows.frame(_BLOCK))
    settings = Settings(
        bootstrap_servers=ward.cluster.bootstrap,
        input_topic=ward.cluster.name(f"restore-{count}"),
        group=ward.cluster.name("restorer"),
    )
    topic = settings.topic(Role.STATE)
    ward.cluster.make(settings.input_topic)
    ward.cluster.make(topic, config=TOPICS[Role.STATE].config)
    size = _fill(ward, topic, history, count)
    ends = dict(enumerate(ward.cluster.ends(topic)))
    state = make_state(settings, history, {topic: 1_000_000}, Observer())
    began, cpu = time.monotonic(), time.process_time()
    state.assigned(ends)
    while state.outstanding:
        state.restore()
    seconds, spent = time.monotonic() - began, time.process_time() - cpu
    state.close()
    ward.cluster.delete([topic, settings.input_topic])
    return {"patients": count, "bytes": size, "seconds": seconds, "cpu_s": spent}


def _fill(ward: Bench, topic: str, history: PatientHistory, count: int) -> int:
    """Write the state of `count` patients; returns the bytes of one."""
    patients = history.start()
    patients.advance(ward.rows.frame(_KERNEL_ROWS))
    _, known = patients.of(0)
    values = StateRecords(patients.layout, history.recipe_sha256).encode(known)
    ward.cluster.fill(topic, ((f"p-{n}".encode(), values[n % len(values)]) for n in range(count)))
    return len(values[0])


# --- takeover


def _takeover(ward: Bench, step: Step) -> dict[str, Any]:
    """The longest gap in a partition's results when one of two workers is killed."""
    step(f"state: a worker is killed, {_TAKEN_OVER:,} patients")
    topic, messages = ward.cluster.name("takeover"), _TAKEN_OVER + int(1.1 * _LOAD_RATE * _LOAD_S) + 1_000
    ward.cluster.make(topic)
    results, received = Results(messages), np.full(messages, np.nan)
    with (
        ward.work(WORKER, LR_SMALL, 100, topic) as work,
        ward.start(WORKER, work) as one,
        ward.start(WORKER, work),
        Reader(ward.cluster, work.output, results) as reader,
    ):
        first = warm(ward, work, one, reader)
        ward.cluster.fill(topic, map(ward.rows.message, range(first, _TAKEN_OVER)))
        reader.read(lambda: results.read >= _TAKEN_OVER, timeout=_READ_S)
        load = Load(ward, topic, rate=_LOAD_RATE, seconds=_LOAD_S, first=_TAKEN_OVER)
        load.start()
        killed = 0.0
        while not load.ended_at or (results.read < load.next and time.time() < load.ended_at + _LATE_S):
            if not killed and load.began_at and time.time() >= load.began_at + _KILL_AT:
                killed = time.time()
                os.kill(one.pid, signal.SIGKILL)
            number = reader.next()
            if number is not None:
                received[number] = time.time()
        load.join()
    ward.cluster.delete([topic])
    gaps = gaps_after(received, results.partition, killed, seconds=_LOAD_S)
    check = results.first(load.next).verdict(ward.truth(LR_SMALL, load.next))
    return {"patients": _TAKEN_OVER, "gap_s": gaps["partition"], "session_s": _SESSION_S, "check": check}
