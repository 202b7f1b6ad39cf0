"""Pathway: a table read from the topic, a column from a batched function, a table written to the topic.

Guarantee: at least once with persistence, which is not configured here.
"""

import pandas as pd
import pathway as pw
from shared import BOOTSTRAP, CHUNK, GROUP, INPUT, OUTPUT, load_model

model = load_model()
features = list(model.feature_names_in_)
settings = {"bootstrap.servers": BOOTSTRAP, "group.id": GROUP, "auto.offset.reset": "earliest"}
names = {"patient_id": str, "event_time": str} | dict.fromkeys(features, float | None)


@pw.udf(max_batch_size=CHUNK)
def risk(*columns: list[float | None]) -> list[float]:
    frame = pd.DataFrame(dict(zip(features, columns, strict=True)), dtype=float)
    return model.predict_proba(frame)[:, 1].tolist()


schema = pw.schema_from_types(**names)
vitals = pw.io.kafka.read(settings, topic=INPUT, format="json", schema=schema, autocommit_duration_ms=100)
scored = vitals.select(
    pw.this.patient_id, pw.this.event_time, risk_probability=risk(*(vitals[name] for name in features))
)
scored = scored.with_columns(risk_label=pw.if_else(pw.this.risk_probability >= 0.5, 1, 0))
pw.io.kafka.write(scored, settings, topic_name=OUTPUT, format="json", key=scored.patient_id)
pw.run(monitoring_level=pw.MonitoringLevel.NONE)
