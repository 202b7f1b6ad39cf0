"""Bytewax with state: each vital's last value and its age, a row at a time.

Guarantee: at least once with a recovery store, which is not configured here; it has no consumer group. No model is
asked.
"""

import json
import os
from datetime import datetime

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from shared import BOOTSTRAP, CHUNK, INPUT, OUTPUT

VITALS = os.environ["BENCH_VITALS"].split(",")


def last_and_age(known, row):
    known = known or {}
    now = datetime.fromisoformat(row["event_time"]).timestamp()
    for name in VITALS:
        if row[name] is not None:
            known[name] = [row[name], now]
    result = {"patient_id": row["patient_id"], "event_time": row["event_time"]}
    for name, (value, since) in known.items():
        age = (now - since) / 3600
        result[f"{name}_last"] = value if age <= 8 else None
        result[f"{name}_age_h"] = age
    return known, result


flow = Dataflow("history")
source = kop.input("vitals", flow, brokers=[BOOTSTRAP], topics=[INPUT], batch_size=CHUNK)
rows = op.map("read", source.oks, lambda message: json.loads(message.value))
keyed = op.key_on("patient", rows, lambda row: row["patient_id"])
results = op.stateful_map("last", keyed, last_and_age)
messages = op.map(
    "write", results, lambda one: KafkaSinkMessage(one[0].encode(), json.dumps(one[1]).encode())
)
kop.output("results", messages, brokers=[BOOTSTRAP], topic=OUTPUT)
cli_main(flow)
