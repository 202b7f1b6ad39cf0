"""Spark Structured Streaming on two local cores: Kafka source and sink around mapInPandas.

Guarantee: at least once, by its checkpoint directory.
"""

import os
import tempfile

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, from_json, struct, to_json
from shared import BOOTSTRAP, CHUNK, INPUT, OUTPUT, load_model

model = load_model()
features = list(model.feature_names_in_)
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars", os.environ["BENCH_JARS"])
    .config("spark.sql.execution.arrow.maxRecordsPerBatch", CHUNK)
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.ui.enabled", False)
    .getOrCreate()
)
schema = "patient_id string, event_time string, " + ", ".join(f"{name} double" for name in features)
kafka = {"kafka.bootstrap.servers": BOOTSTRAP}


def score_frames(frames):
    for frame in frames:
        risks = model.predict_proba(frame[features])[:, 1]
        yield frame[["patient_id", "event_time"]].assign(
            risk_probability=risks, risk_label=(risks >= 0.5).astype(int)
        )


source = spark.readStream.format("kafka").options(**kafka, subscribe=INPUT, startingOffsets="earliest").load()
vitals = source.select(from_json(col("value").cast("string"), schema).alias("row")).select("row.*")
types = "patient_id string, event_time string, risk_probability double, risk_label int"
risks = vitals.mapInPandas(score_frames, types)
out = risks.select(col("patient_id").alias("key"), to_json(struct("*")).alias("value"))
checkpoint = tempfile.mkdtemp(prefix="spark-checkpoint-")
options = {"topic": OUTPUT, "checkpointLocation": checkpoint}
out.writeStream.format("kafka").options(**kafka, **options).start().awaitTermination()
