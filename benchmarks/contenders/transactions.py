"""A light process that commits one small transaction after another, and prints how many per second.

Each has one message and one offset, like a worker's at low load. It starts at BENCH_START_AT.
"""

import os
import time

from clients import consumer, transactional_producer
from confluent_kafka import TopicPartition
from shared import INPUT, OUTPUT

SECONDS = 4.0

reader, producer = consumer(), transactional_producer()
while not reader.assignment():
    reader.poll(0.1)
time.sleep(max(0.0, float(os.environ["BENCH_START_AT"]) - time.time()))
began, count = time.monotonic(), 0
while time.monotonic() - began < SECONDS:
    producer.begin_transaction()
    producer.produce(OUTPUT, b"result", b"patient")
    producer.flush()
    offset = TopicPartition(INPUT, reader.assignment()[0].partition, count)
    producer.send_offsets_to_transaction([offset], reader.consumer_group_metadata())
    producer.commit_transaction()
    count += 1
print(count / (time.monotonic() - began))
