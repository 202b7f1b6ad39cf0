"""The bare prototype: the worker's client, decoding, scoring and results, with nothing around them.

Guarantee: exactly once, as long as every message is good and nothing fails. It has no validation, no dead
letters, no metrics, and no handling of rebalances and errors; the worker's distance to it is what these cost.
"""

import os
import time
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from clients import Transactions, consumer
from shared import CHUNK, INPUT, MODEL, load_model

from real_time.arithmetic import arithmetic
from real_time.model_file import model_sha256
from real_time.steps import NoFastPathError
from real_time.texts import Texts
from schemas.clock import rfc3339

COMMIT_S = int(os.environ["BENCH_COMMIT_MS"]) / 1000

model = load_model()
features = itemgetter(*model.feature_names_in_)
width = len(model.feature_names_in_)
sha256 = model_sha256(Path(MODEL))


def scorer() -> Any:
    """Probabilities of an array, by the worker's fast path if there is one."""
    try:
        return arithmetic(model, 1, Texts()).probability
    except NoFastPathError:
        return lambda X: model.predict_proba(X)[:, 1]


def results(messages: list[Any]) -> list[tuple[bytes, bytes]]:
    rows = [orjson.loads(message.value()) for message in messages]
    X = np.fromiter(chain.from_iterable(map(features, rows)), np.float64, len(rows) * width)
    risks = probability(X.reshape(-1, width)).tolist()
    at = rfc3339(time.time())
    return [
        (
            orjson.dumps(
                {
                    "patient_id": row["patient_id"],
                    "event_time": row["event_time"],
                    "risk_probability": risk,
                    "risk_label": int(risk >= 0.5),
                    "threshold": 0.5,
                    "model": sha256,
                    "scored_at": at,
                    "source_topic": INPUT,
                    "source_partition": message.partition(),
                    "source_offset": message.offset(),
                }
            ),
            message.key(),
        )
        for row, risk, message in zip(rows, risks, messages, strict=True)
    ]


probability = scorer()
reader = consumer()
transactions = Transactions(reader)
while True:
    messages = reader.consume(CHUNK, 0) or reader.consume(1, 0.1)
    good = [message for message in messages if not message.error()]
    if good:
        transactions.send(results(good))
    transactions.commit(after=COMMIT_S if len(messages) == CHUNK else 0)
