"""The oracle for state: the topics must hold what an offline fold of the input gives, up to the committed offsets."""

from collections import defaultdict
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from confluent_kafka import Consumer, Message, TopicPartition

from broker.notes import read_note
from broker.roles import Role
from broker.settings import Settings
from consumer import model as models
from real_time.history import Patients
from real_time.history.records import StateRecords
from real_time.history.rows import rows_in, time_reader
from schemas.decoding import make_decoder
from schemas.histories import fit_for_history
from tests.consumer.accounts import Accounts, read_accounts, require_exactly_once
from tests.kafka import read_all

State = dict[int, dict[str, bytes]]
"""By partition, each patient's row as bytes."""


def require_state_is_fold(settings: Settings, *, rows: int) -> Accounts:
    """Fail unless every message has one answer, with the score that its patient's whole past gives."""
    found = require_exactly_once(settings, rows=rows)
    require_folded(settings, found)
    return found


def require_folded(settings: Settings, found: Accounts | None = None) -> None:
    """Fail unless state and scores match an offline fold up to the committed offsets."""
    found = found or read_accounts(settings)
    model = models.load(settings, with_history=True)
    history: Any = model.history
    decode, patients = make_decoder(settings, model), history.start()
    for partition, messages in _by_partition(found).items():
        decoded = decode(messages)
        decoded, times = fit_for_history(
            decoded,
            time_reader()(decoded.event_times),
            keys=[message.key() for message in messages],
            timestamps=np.array([message.timestamp()[1] for message in messages]),
        )
        counted = rows_in(
            decoded.frame,
            patients.layout.columns,
            decoded.patient_ids,
            times,
            has_encounters=patients.has_encounters,
        )
        past = patients.apply(counted, [partition] * len(counted))
        risk = model.scorer.behind_history(pd.DataFrame(past.features, columns=patients.layout.names))
        places = [(partition, messages[position].offset()) for position in decoded.frame.index]
        for place, expected, (seen, _) in zip(places, risk.tolist(), past.seen.tolist(), strict=True):
            result = found.by_position.get(place)
            if result is not None:  # else the model rejected the row
                assert result.history is not None
                assert result.history["rows_seen"] == seen, "counted twice, or not at all"
                assert result.risk_probability == (None if result.no_input else expected), (
                    "scored differently"
                )
    folded = {partition: _rows(patients, partition) for partition in found.committed}
    assert read_state(settings) == {number: rows for number, rows in folded.items() if rows}
    require_ends(settings)


def read_state(settings: Settings) -> State:
    """What a read_committed reader finds on the state topic: each patient's newest row."""
    model = models.load(settings, with_history=True)
    history: Any = model.history
    records = StateRecords(history.start().layout, history.recipe_sha256)
    found: dict[int, dict[str, bytes]] = defaultdict(dict)
    for message in read_all(settings.bootstrap_servers, settings.topic(Role.STATE)):
        partition, key, value = message.partition(), message.key(), message.value()
        assert partition is not None
        assert key is not None
        assert value is not None
        found[partition][key.decode()] = records.decode([value])[0].tobytes()
    return dict(found)


def state_ends(settings: Settings) -> dict[int, int | None]:
    """The state ends in the metadata of the committed offsets."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.group})
    try:
        topics = consumer.list_topics(settings.input_topic, timeout=10).topics
        asked = [TopicPartition(settings.input_topic, one) for one in topics[settings.input_topic].partitions]
        found = consumer.committed(asked, timeout=10)
    finally:
        consumer.close()
    return {one.partition: read_note(one.metadata).state_end for one in found if one.offset >= 0}


def require_ends(settings: Settings) -> None:
    """Fail unless each committed offset's metadata says where its state partition's last committed record ends."""
    last: dict[int, int] = defaultdict(int)
    for message in read_all(settings.bootstrap_servers, settings.topic(Role.STATE)):
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        last[partition] = max(last[partition], offset + 1)
    assert state_ends(settings) == {partition: last[partition] for partition in state_ends(settings)}


def _by_partition(found: Accounts) -> dict[int, list[Message]]:
    positions = sorted(place for place in found.sources if place[1] < found.committed.get(place[0], 0))
    return {
        partition: [found.sources[place] for place in places]
        for partition, places in groupby(positions, key=lambda place: place[0])
    }


def _rows(patients: Patients, partition: int) -> dict[str, bytes]:
    known, rows = patients.of(partition)
    return {patient: row.tobytes() for patient, row in zip(known, rows, strict=True)}
