"""Faust (faust-streaming): an agent that takes batches of its stream.

Guarantee: at least once at best, because `take` acknowledges a batch even if its handler failed.
"""

import sys
import tempfile

import faust
from shared import BOOTSTRAP, CHUNK, GROUP, INPUT, OUTPUT, load_model, score

model = load_model()
app = faust.App(
    GROUP, broker=f"kafka://{BOOTSTRAP}", store="memory://", web_enabled=False, datadir=tempfile.mkdtemp()
)
source = app.topic(INPUT, value_serializer="json")
results = app.topic(OUTPUT, value_serializer="json")


@app.agent(source)
async def score_vitals(stream):
    async for rows in stream.take(CHUNK, within=1.0):
        for result in score(model, rows):
            await results.send(key=result["patient_id"], value=result)


sys.argv = ["faust", "worker", "-l", "warn", "--without-web"]
app.main()
