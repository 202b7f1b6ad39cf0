"""The limit: the same bytes back, with the worker's client and transactions, and nothing else.

Guarantee: exactly once. A transaction is committed each 100 ms (BENCH_COMMIT_MS).
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
