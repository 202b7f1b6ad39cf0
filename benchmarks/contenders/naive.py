"""The first thing that comes to mind: one message at a time.

Guarantee: at least once, if every delivery succeeds (delivery reports are ignored).
"""

import json

from confluent_kafka import Consumer, Producer
from shared import BOOTSTRAP, GROUP, INPUT, OUTPUT, load_model, score

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
    message = consumer.poll(1.0)
    if message is None or message.error():
        continue
    (result,) = score(model, [json.loads(message.value())])
    producer.produce(OUTPUT, json.dumps(result), message.key())
    producer.poll(0)
    consumer.commit(message, asynchronous=False)
