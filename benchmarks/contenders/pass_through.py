"""The limit of throughput: returns the same bytes, using the worker's client and transactions and nothing else.

Guarantee: exactly once. It commits a transaction every 100 ms (BENCH_COMMIT_MS).
"""

import os

from clients import Transactions, consumer

COMMIT_S = int(os.environ["BENCH_COMMIT_MS"]) / 1000

reader = consumer()
transactions = Transactions(reader)
while True:
    messages = reader.consume(1000, COMMIT_S)
    transactions.send([(message.value(), message.key()) for message in messages if not message.error()])
    transactions.commit(after=COMMIT_S)
