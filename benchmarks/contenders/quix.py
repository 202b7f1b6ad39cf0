"""Quix Streams: a function per row, as in its documentation, with its exactly-once guarantee.

Guarantee: exactly once. `commit_interval` is 5 s by default, which would be the latency too; here it is 0.1 s.
Count windows would batch, but need all rows under one key and hold back incomplete batches.
"""

from quixstreams import Application
from shared import BOOTSTRAP, GROUP, INPUT, OUTPUT, load_model, score

model = load_model()
app = Application(
    broker_address=BOOTSTRAP,
    consumer_group=GROUP,
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    commit_interval=0.1,
)
stream = app.dataframe(app.topic(INPUT, value_deserializer="json"))
stream = stream.apply(lambda row: score(model, [row])[0])
stream = stream.to_topic(app.topic(OUTPUT, value_serializer="json"))
app.run()
