"""Pathway with state: each vital's last value and its age, by a stateful reducer of each patient.

A reducer gives one row for each patient and batch, so it keeps what the batch's messages give, which are flattened
again; what it gave for the batch before is taken back, and left out. No model is asked.
Guarantee: at least once with persistence, which is not configured here.
"""

import json
import os
from datetime import datetime

import pathway as pw
from shared import BOOTSTRAP, GROUP, INPUT, OUTPUT

VITALS = os.environ["BENCH_VITALS"].split(",")
settings = {"bootstrap.servers": BOOTSTRAP, "group.id": GROUP, "auto.offset.reset": "earliest"}
names = {"patient_id": str, "event_time": str} | dict.fromkeys(VITALS, float | None)


@pw.reducers.stateful_many
def follow(state, rows):
    known = {} if state is None else state[0].as_dict()
    results = []
    for (patient, time, *values), _ in sorted(rows, key=lambda one: one[0][1]):
        now = datetime.fromisoformat(time).timestamp()
        for name, value in zip(VITALS, values, strict=True):
            if value is not None:
                known[name] = [value, now]
        result = {"patient_id": patient, "event_time": time}
        for name, (value, since) in known.items():
            age = (now - since) / 3600
            result[f"{name}_last"] = value if age <= 8 else None
            result[f"{name}_age_h"] = age
        results.append(json.dumps(result))
    return pw.Json(known), tuple(results)


schema = pw.schema_from_types(**names)
vitals = pw.io.kafka.read(settings, topic=INPUT, format="json", schema=schema, autocommit_duration_ms=100)
columns = [vitals.patient_id, vitals.event_time, *(vitals[name] for name in VITALS)]
followed = vitals.groupby(vitals.patient_id).reduce(vitals.patient_id, state=follow(*columns))
results = pw.apply_with_type(lambda state: state[1], tuple[str, ...], followed.state)
stream = followed.select(followed.patient_id, result=results).flatten(pw.this.result).to_stream("is_new")
new = stream.filter(stream.is_new)
pw.io.kafka.write(new, settings, topic_name=OUTPUT, format="plaintext", key=new.patient_id, value=new.result)
pw.run(monitoring_level=pw.MonitoringLevel.NONE)
