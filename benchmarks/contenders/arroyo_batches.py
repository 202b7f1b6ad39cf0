"""Sentry's Arroyo: batches by count and time, unbatched again for the produce step.

Guarantee: at least once. Offsets are committed once per second, after earlier results have been delivered.
"""

import json

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.backends.kafka.configuration import build_kafka_configuration, build_kafka_consumer_configuration
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategyFactory, Produce, RunTask
from arroyo.processing.strategies.batching import BatchStep, UnbatchStep
from arroyo.types import Topic
from shared import BOOTSTRAP, CHUNK, GROUP, INPUT, OUTPUT, load_model, score

model = load_model()
producer = KafkaProducer(build_kafka_configuration({"bootstrap.servers": BOOTSTRAP}))


def score_batch(message):
    values = message.payload
    scored = score(model, [json.loads(value.payload.value) for value in values])
    payloads = [
        KafkaPayload(value.payload.key, json.dumps(result).encode(), [])
        for value, result in zip(values, scored, strict=True)
    ]
    return [value.replace(payload) for value, payload in zip(values, payloads, strict=True)]


class Factory(ProcessingStrategyFactory):
    def create_with_partitions(self, commit, partitions):
        produce = Produce(producer, Topic(OUTPUT), CommitOffsets(commit))
        return BatchStep(CHUNK, 1.0, RunTask(score_batch, UnbatchStep(produce)))


consumer = KafkaConsumer(
    build_kafka_consumer_configuration({"bootstrap.servers": BOOTSTRAP}, GROUP, auto_offset_reset="earliest")
)
StreamProcessor(consumer, Topic(INPUT), Factory(), ONCE_PER_SECOND).run()
