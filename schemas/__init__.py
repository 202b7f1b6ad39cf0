"""The contract: JSON Schemas, AsyncAPI, and the code that reads and writes them.

`contract` names every field and limit once. `vitals` decodes patient messages; `results`, `metrics` and `dead_letters`
write and read the output topics' messages. `*.schema.json` (JSON Schema 2020-12) and `asyncapi.yaml` describe the same
to programs in other languages.
"""

from importlib.resources import files
from typing import Any

import orjson


def load_schema(name: str) -> dict[str, Any]:
    """The JSON Schema `name`: vitals, risk, risk-metrics, dead-letter-headers or model-card."""
    schema: dict[str, Any] = orjson.loads(files(__name__).joinpath(f"{name}.schema.json").read_bytes())
    return schema
