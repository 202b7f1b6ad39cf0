"""Quix Streams with state: each vital's last value and its age, row by row, with its exactly-once guarantee.

It runs no model. `commit_interval` is as in quix.py.
"""

import os
import tempfile
from datetime import datetime

from quixstreams import Application
from shared import BOOTSTRAP, GROUP, INPUT, OUTPUT

VITALS = os.environ["BENCH_VITALS"].split(",")


def last_and_age(row, state):
    now = datetime.fromisoformat(row["event_time"]).timestamp()
    known = state.get("last", {})
    for name in VITALS:
        if row[name] is not None:
            known[name] = [row[name], now]
    state.set("last", known)
    result = {"patient_id": row["patient_id"], "event_time": row["event_time"]}
    for name, (value, since) in known.items():
        age = (now - since) / 3600
        result[f"{name}_last"] = value if age <= 8 else None
        result[f"{name}_age_h"] = age
    return result


app = Application(
    broker_address=BOOTSTRAP,
    consumer_group=GROUP,
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    commit_interval=0.1,
    state_dir=tempfile.mkdtemp(),
)
stream = app.dataframe(app.topic(INPUT, value_deserializer="json"))
stream = stream.apply(last_and_age, stateful=True)
stream = stream.to_topic(app.topic(OUTPUT, value_serializer="json"))
app.run()
