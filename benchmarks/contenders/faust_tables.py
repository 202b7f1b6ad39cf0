"""Faust (faust-streaming) with a table: each vital's last value and its age, row by row.

Guarantee: at least once. It runs no model. The table's changes go to a changelog topic.
"""

import os
import sys
import tempfile
from datetime import datetime

import faust
from shared import BOOTSTRAP, GROUP, INPUT, OUTPUT

VITALS = os.environ["BENCH_VITALS"].split(",")

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP}",
    store="memory://",
    web_enabled=False,
    datadir=tempfile.mkdtemp(),
    topic_partitions=int(os.environ["BENCH_PARTITIONS"]),
)
source = app.topic(INPUT, key_type=bytes, value_serializer="json")
results = app.topic(OUTPUT, value_serializer="json")
patients = app.Table("patients", default=dict)


@app.agent(source)
async def follow(stream):
    async for row in stream:
        now = datetime.fromisoformat(row["event_time"]).timestamp()
        known = dict(patients[row["patient_id"]])
        for name in VITALS:
            if row[name] is not None:
                known[name] = [row[name], now]
        patients[row["patient_id"]] = known
        result = {"patient_id": row["patient_id"], "event_time": row["event_time"]}
        for name, (value, since) in known.items():
            age = (now - since) / 3600
            result[f"{name}_last"] = value if age <= 8 else None
            result[f"{name}_age_h"] = age
        await results.send(key=row["patient_id"], value=result)


sys.argv = ["faust", "worker", "-l", "warn", "--without-web"]
app.main()
