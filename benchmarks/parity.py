"""`make history ARGS=--online`: a topic's scores next to `predict_proba` of the same messages, bit for bit.

Real rows are sent as devices would send them, and workers score them, three of which are killed. Each result is then
compared with the model's own `predict_proba` of a frame of all messages, in the order of the log.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import orjson
import pandas as pd
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline

from benchmarks.cluster import PARTITIONS, Cluster, running
from broker.roles import TOPICS, Role
from broker.settings import Settings
from real_time.history import PatientHistory, Window
from real_time.model_file import pin_model

ROWS: Final = 50_000
KILLED: Final = 3
_EACH: Final = 20_000  # results between two kills
_LIMIT_S: Final = 600.0

Place = tuple[int, int]


def compare(stays: pd.DataFrame, vitals: list[str]) -> None:
    """Print how many results equal offline scoring, and exit with 1 unless all do."""
    with tempfile.TemporaryDirectory() as name, running() as cluster:
        directory = Path(name)
        path, model = _fitted(stays, vitals, directory)
        settings = Settings(
            bootstrap_servers=cluster.bootstrap,
            input_topic=cluster.name("vitals"),
            output_topic=cluster.name("risk"),
            metrics_topic=cluster.name("risk-metrics"),
            dead_letter_topic=cluster.name("dead"),
            group=cluster.name("group"),
            model=path,
        )
        cluster.make(*settings.topics)
        cluster.make(settings.topic(Role.STATE), config=TOPICS[Role.STATE].config)
        rows = directory / "rows.parquet"
        stays.head(ROWS)[["patient_id", "event_time", *vitals]].to_parquet(rows)
        _run(settings, "replay", str(rows), "--as-arrived")
        _score(settings, cluster)
        offline, online = _offline(settings, model, vitals), _online(settings)
    differ = [place for place in {**offline, **online} if online.get(place) != offline.get(place)]
    print(
        f"{len(offline):,} messages of {ROWS:,} rows, {KILLED} workers killed: {len(online):,} results, "
        f"{len(differ):,} differ from predict_proba in some bit, are missing or are there twice"
    )
    if differ:
        sys.exit(1)


def _fitted(stays: pd.DataFrame, vitals: list[str], directory: Path) -> tuple[Path, Any]:
    history = PatientHistory(dict.fromkeys(vitals, "8h"), windows=[Window("6h"), Window("24h")])
    model = make_pipeline(history, HistGradientBoostingClassifier(max_iter=150, random_state=0))
    path = directory / "model.joblib"
    joblib.dump(model.fit(stays[["patient_id", "event_time", *vitals]], stays["sepsis"]), path)
    pin_model(path)
    return path, model


def _score(settings: Settings, cluster: Cluster) -> None:
    """Workers, one after another, of which all but the last are killed."""
    for number in range(1, KILLED + 1):
        with _begun(settings, "consume") as worker:
            deadline = time.monotonic() + _LIMIT_S
            while cluster.end(settings.output_topic) < number * _EACH and time.monotonic() < deadline:
                if worker.poll() is not None:
                    sys.exit(f"a worker ended with {worker.returncode}")
                time.sleep(0.01)
            worker.send_signal(signal.SIGKILL)
    _run(settings, "consume", "--until-idle", "5")


def _offline(settings: Settings, model: Any, vitals: list[str]) -> dict[Place, list[float | None]]:
    """What the model says of all messages of a topic, in the order of each partition."""
    messages = [*_read(settings, settings.input_topic)]
    frame = pd.DataFrame([orjson.loads(message.value() or b"") for message in messages])
    frame = frame.reindex(columns=["patient_id", "event_time", *vitals]).astype(dict.fromkeys(vitals, float))
    risk = model.predict_proba(frame)[:, 1]
    asked = frame[vitals].notna().any(axis=1)
    scores = np.where(asked, risk, np.nan).tolist()
    return {_place(one): [None if np.isnan(p) else p] for one, p in zip(messages, scores, strict=True)}


def _online(settings: Settings) -> dict[Place, list[float | None]]:
    found: dict[Place, list[float | None]] = {}
    for message in _read(settings, settings.output_topic):
        result = orjson.loads(message.value() or b"")
        place = result["source_partition"], result["source_offset"]
        found.setdefault(place, []).append(result["risk_probability"])
    return found


def _place(message: Message) -> Place:
    partition: Any = message.partition()
    offset: Any = message.offset()
    return partition, offset


def _read(settings: Settings, topic: str) -> Iterator[Message]:
    """All messages of a topic, partition by partition."""
    consumer = Consumer(
        settings.client() | {"group.id": "parity", "enable.partition.eof": True, "enable.auto.commit": False}
    )
    for partition in range(PARTITIONS):
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        while True:
            message = consumer.poll(_LIMIT_S)
            error = None if message is None else message.error()
            if message is None or (error is not None and error.code() != KafkaError._PARTITION_EOF):
                sys.exit(f"{topic} can't be read: {error}")
            if error is not None:
                break
            yield message
    consumer.close()


def _run(settings: Settings, *command: str) -> None:
    with _begun(settings, *command) as process:
        if process.wait(_LIMIT_S):
            sys.exit(f"vitalstream {command[0]} ended with {process.returncode}")


@contextmanager
def _begun(settings: Settings, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    told = {
        "bootstrap_servers": settings.bootstrap_servers,
        "input_topic": settings.input_topic,
        "output_topic": settings.output_topic,
        "metrics_topic": settings.metrics_topic,
        "dead_letter_topic": settings.dead_letter_topic,
        "group": settings.group,
        "model": settings.model,
    }
    environment = os.environ | {f"VITALSTREAM_{name.upper()}": str(value) for name, value in told.items()}
    argv = [sys.executable, "-m", "vitalstream", *command]
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()
