"""The textbook micro-batch: consume(n, 1 s), a DataFrame from the dicts, flush, commit.

Guarantee: at least once, if every delivery succeeds (delivery reports are ignored).
"""

import json

from confluent_kafka import Consumer, Producer
from shared import BOOTSTRAP, CHUNK, GROUP, INPUT, OUTPUT, load_model, score

model = load_model()
consumer = Consumer(
    {
        "bootstrap.servers": BOOTSTRAP,
        "group.id": GROUP,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
producer = Producer({"bootstrap.servers": BOOTSTRAP})
consumer.subscribe([INPUT])
while True:
    messages = [message for message in consumer.consume(CHUNK, 1.0) if not message.error()]
    if not messages:
        continue
    for result in score(model, [json.loads(message.value()) for message in messages]):
        producer.produce(OUTPUT, json.dumps(result), result["patient_id"])
        producer.poll(0)
    producer.flush()
    consumer.commit(asynchronous=False)
