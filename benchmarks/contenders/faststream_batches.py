"""FastStream on confluent-kafka: a batch subscriber that publishes a batch of results.

Guarantee: at least once (its default, ACK_FIRST, would be at most once). Results have no key, because
publish_batch accepts none per message.
"""

import asyncio

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker
from shared import BOOTSTRAP, CHUNK, GROUP, INPUT, OUTPUT, load_model, score

model = load_model()
broker = KafkaBroker(BOOTSTRAP)
app = FastStream(broker)


@broker.subscriber(
    INPUT,
    group_id=GROUP,
    batch=True,
    max_records=CHUNK,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.REJECT_ON_ERROR,
)
async def score_vitals(rows: list[dict]) -> None:
    await broker.publish_batch(*score(model, rows), topic=OUTPUT)


asyncio.run(app.run())
