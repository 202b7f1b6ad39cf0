"""Thousands of broken messages of every format: none raises, and no number comes out that is not in the message.

`python -m tests.schemas.mutants --documents N` tries N of each format; the test suite tries a few.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import fastavro
import numpy as np
import orjson

from broker.settings import load_settings
from schemas.contract import EVENT_TIME, PATIENT_ID, STANDARD_FEATURES
from schemas.decoding import make_decoder
from schemas.encoding import make_encoder
from schemas.messages import plain
from schemas.units import STANDARD_UNITS, UNITS, conversion
from schemas.vitals import Decoder
from tests.schemas.avro import record, written

CHUNK: Final = 200
_REPLACED: Final = 0.3
ROW: Final = {
    PATIENT_ID: "p-17",
    EVENT_TIME: "2026-01-05T08:30:00.250+01:00",
    **dict(zip(STANDARD_FEATURES, (84, 17.5, 36.9, 96, 118, 64, 82.25, 67), strict=True)),
}
NESTED: Final[dict[str, Any]] = {
    "op": "c",
    "patient": {"id": 4711},
    "at": 1767601800250,
    "bp": "118/64",
    "vitals": {
        name: {"value": ROW[name], "unit": unit}
        for name, unit in STANDARD_UNITS.items()
        if not name.endswith("olic_bp")
    },
}
MAPPING: Final = """
when = { op = ["c", "u"] }
retracted = { op = ["d"] }
patient_id = { path = "patient.id", integer = true }
event_time = { path = "at", as = "epoch_ms" }
[features]
systolic_bp = { path = "bp", split = ["/", 0] }
diastolic_bp = { path = "bp", split = ["/", 1] }
""" + "".join(
    f'{name} = {{ path = "vitals.{name}.value", unit_path = "vitals.{name}.unit" }}\n'
    for name in NESTED["vitals"]
)
READINGS: Final = {
    "patient": "p-17",
    "at": "2026-01-05T08:30:00Z",
    "readings": [{"code": name, "v": ROW[name], "u": unit} for name, unit in STANDARD_UNITS.items()],
}
BY_CODE: Final = """
patient_id = { path = "patient" }
event_time = { path = "at" }
readings = { path = "readings", code = "code", value = "v", unit = "u" }
[features]
""" + "".join(f'{name} = {{ codes = ["{name}"] }}\n' for name in STANDARD_FEATURES)
AVRO: Final = record(
    (PATIENT_ID, "string"),
    (EVENT_TIME, "string"),
    ("tags", {"type": "map", "values": ["null", "string", "long"]}),
    *((name, ["null", "double", "long", "boolean", "string"]) for name in STANDARD_FEATURES),
)
_DEEP: Final = b"[" * 1010 + b"]" * 1010, b'{"a":' * 1010 + b"1" + b"}" * 1010
_ODD: Final = (
    *_DEEP,
    *b'null true [] {} "x" "" -1 1e400 0.5 [1] {"a":1} "Cel" "d" 99999999999999999999'.split(),
)
_HOLE: Final = "a hole in a document"
_TOKENS: Final = (
    *(b"null", b"true", b"[]", b"{}", b'""', b'"', b"\\", b"\\u0022", b",", b":", b"}", b"]", b"[", b"{"),
    *(
        b"1e999",
        b"-0",
        b"NaN",
        b"1e308",
        b"9" * 30,
        b"0.1",
        b"-",
        b"+",
        b".",
        b",5",
        b'"84"',
        b">100",
        b"\xd9\xa3",
    ),
    *(
        b"|",
        b"^",
        b"~",
        b"&",
        b"\r",
        b"\n",
        b"\r\n",
        b"\\F\\",
        b"\\X0D\\",
        b"OBX|",
        b"MSH|",
        b"PID|",
        b"||||",
        b"\x1b$B",
    ),
    *(
        b"\x00",
        b"\x01",
        b"\xff",
        b"\x80",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xff" * 9 + b"\x01",
    ),
    *(
        b"\x00\x00\x00\x00\x07",
        _DEEP[0],
        _DEEP[1],
        b"] " * 40,
        b"F",
        b"[degF]",
        b"mm[Hg]",
        b"Cel",
        b"kPa",
    ),
)


class Target(NamedTuple):
    """A format: its decoder, good messages, and the numbers that an independent parser finds in a message."""

    name: str
    decode: Decoder
    corpus: list[bytes]
    numbers: Callable[[bytes], Iterable[Any]]


def targets(folder: Path) -> list[Target]:
    """All formats; their mappings and schemas are written to `folder`."""
    (mapping := folder / "nested.toml").write_text(MAPPING)
    (by_code := folder / "by_code.toml").write_text(BY_CODE)
    (schema := folder / "vitals.avsc").write_bytes(orjson.dumps(AVRO))
    flat, nested, readings = map(orjson.dumps, (ROW, NESTED, READINGS))
    avro = written(AVRO, {**ROW, "tags": {"ward": "ICU", "bed": 7}})
    fhir = make_encoder(load_settings(value_format="fhir", mapping=Path("fhir")))(ROW)
    single = orjson.dumps(orjson.loads(fhir)["entry"][0]["resource"])
    hl7 = make_encoder(load_settings(value_format="hl7v2", mapping=Path("hl7v2")))(ROW)
    return [
        Target("json", _decoder(), [flat], _in_json),
        Target("json, nested", _decoder(mapping=mapping), [nested], _in_json),
        Target("json, by code", _decoder(mapping=by_code), [readings], _in_json),
        Target(
            "json-schema", _decoder(value_format="json-schema"), [b"\x00\x00\x00\x00\x07" + flat], _in_framed
        ),
        Target("avro", _decoder(value_format="avro", schema_file=schema), [avro], _in_avro),
        Target("fhir", _decoder(value_format="fhir", mapping=Path("fhir")), [fhir, single], _in_json),
        Target("hl7v2", _decoder(value_format="hl7v2", mapping=Path("hl7v2")), [hl7], _in_hl7),
    ]


def _decoder(**given: Any) -> Decoder:
    return make_decoder(load_settings(ranges="off", **given))


def attack(target: Target, count: int, random: Random) -> int:
    """Try `count` mutants; returns how many were read. Raises AssertionError if one raises or invents a number."""
    read = 0
    for start in range(0, count, CHUNK):
        values = [_mutant(random.choice(target.corpus), random) for _ in range(min(CHUNK, count - start))]
        messages = plain(values)
        found = target.decode(messages)
        rows = found.frame.index.tolist()
        assert sorted([*rows, *(reject.position for reject in found.rejects)]) == [*range(len(values))]
        for message in messages[:20]:
            assert all(isinstance(name, str) for name in target.decode.names.of(message))
        for position, numbers in zip(rows, found.frame.to_numpy(), strict=True):
            _require_seen(target, values[position], numbers)
        read += len(rows)
    return read


def _require_seen(target: Target, value: bytes, numbers: Any) -> None:
    sent = np.array([float(one) for one in target.numbers(value)])
    for name, number in zip(target.decode.features, numbers, strict=True):
        if np.isnan(number):
            continue
        wanted = STANDARD_UNITS[name]
        ways = {way for unit in UNITS if (way := conversion(unit, wanted))}
        seen = any(
            np.isclose((sent - zero) * factor, number, rtol=1e-9, atol=1e-12).any() for factor, zero in ways
        )
        assert seen, f"{target.name}: {name} = {number!r} is not in {value!r}"


def _mutant(value: bytes, random: Random) -> bytes:
    if value.startswith(b"{") and random.random() < _REPLACED:
        return _with_another(value, random)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at, to = sorted(random.randrange(len(value) + 1) for _ in range(2))
        to = min(to, at + random.choice((0, 1, 2, 8, 60)))
        match random.randrange(6):
            case 0:
                value = value[:at] + value[to:]
            case 1:
                value = value[:at] + random.choice(_TOKENS) + value[to:]
            case 2:
                value = value[:to] + value[at:to] + value[to:]
            case 3:
                value = value[:at] + random.randbytes(to - at) + value[to:]
            case 4:
                other = random.randrange(len(value) + 1)
                value = value[:at] + value[other : other + to - at] + value[to:]
            case _:
                value = (
                    value[:at] + bytes([value[at] ^ 1 << random.randrange(8)]) + value[at + 1 :]
                    if at < len(value)
                    else b""
                )
        if not value:
            return value
    return value


def _with_another(value: bytes, random: Random) -> bytes:
    """JSON with one value replaced by something odd."""
    document = orjson.loads(value)
    places: list[tuple[Any, Any]] = []
    left: list[Any] = [document]
    while left:
        one = left.pop()
        inside = [*(one.items() if isinstance(one, dict) else enumerate(one))]
        places += [(one, name) for name, _ in inside]
        left += [within for _, within in inside if isinstance(within, dict | list)]
    parent, name = random.choice(places)
    parent[name] = _HOLE
    return orjson.dumps(document).replace(orjson.dumps(_HOLE), random.choice(_ODD))


def _in_json(value: bytes) -> Iterator[Any]:
    """All numbers, including those inside strings, because a mapping may split a string."""
    for deep in _DEEP:
        value = value.replace(deep, b"1")  # the json module allows no deeper nesting than the stack
    left = [json.loads(value)]
    while left:
        one = left.pop()
        if isinstance(one, dict | list):
            left += one.values() if isinstance(one, dict) else one
        elif isinstance(one, str):
            yield from re.findall(r"[+-]?[0-9]+(?:[.][0-9]+)?", one)
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield one


def _in_framed(value: bytes) -> Iterator[Any]:
    return _in_json(value[5:])


def _in_avro(value: bytes) -> Iterator[Any]:
    found: Any = fastavro.schemaless_reader(BytesIO(value), AVRO, None)
    return (one for one in found.values() if isinstance(one, int | float) and not isinstance(one, bool))


def _in_hl7(value: bytes) -> Iterator[Any]:
    """Everything between separators, whatever these are: any byte that is not part of a number may be one."""
    text = value.decode("latin-1")
    pieces = re.split("[" + re.escape(text[text.index("MSH") + 3 :][:6]) + "\r\n]", text)
    for piece in chain(pieces, re.findall(r"[0-9+.-]+", text)):
        try:
            yield float(piece)
        except ValueError:
            continue


def main() -> None:
    """Try that many mutants of each format, and print how many were read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    given = parser.parse_args()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for target in targets(Path(folder)):
            read = attack(target, given.documents, Random(given.seed))
            print(
                f"{target.name}: {given.documents:,} mutants, {read:,} of them read; seed {given.seed}",
                flush=True,
            )


if __name__ == "__main__":
    main()
