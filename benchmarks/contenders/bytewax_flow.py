"""Bytewax: a dataflow that maps the batches of its Kafka source.

Guarantee: at least once with a recovery store, which is not configured here. It has no consumer group.
"""

import json

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from shared import BOOTSTRAP, CHUNK, INPUT, OUTPUT, load_model, score

model = load_model()


def score_batch(messages):
    scored = score(model, [json.loads(message.value) for message in messages])
    for message, result in zip(messages, scored, strict=True):
        yield KafkaSinkMessage(message.key, json.dumps(result).encode())


flow = Dataflow("risk")
source = kop.input("vitals", flow, brokers=[BOOTSTRAP], topics=[INPUT], batch_size=CHUNK)
risks = op.flat_map_batch("score", source.oks, score_batch)
kop.output("risk", risks, brokers=[BOOTSTRAP], topic=OUTPUT)
cli_main(flow)
