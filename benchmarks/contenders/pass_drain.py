"""The limit of latency: returns the same bytes, and commits as soon as nothing more is queued.

Guarantee: exactly once. With a backlog it continues for BENCH_COMMIT_MS before it commits.
"""

import os

from clients import Transactions, consumer

CHUNK, COMMIT_S = int(os.environ["BENCH_CHUNK"]), int(os.environ["BENCH_COMMIT_MS"]) / 1000

reader = consumer()
transactions = Transactions(reader)
while True:
    messages = reader.consume(CHUNK, 0) or reader.consume(1, 0.1)
    transactions.send([(message.value(), message.key()) for message in messages if not message.error()])
    transactions.commit(after=COMMIT_S if len(messages) == CHUNK else 0)
