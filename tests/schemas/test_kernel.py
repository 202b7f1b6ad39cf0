"""The native kernel gives the same as the Python code, and reads plain messages by itself."""

import importlib.util
import math
import re
import tomllib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.kernel import VERSION
from schemas.mapping import Mapping
from schemas.results import encode_results
from schemas.scanning import make_scanner
from tests.kernels import with_kernel
from tests.schemas.fuzz import (
    CORPUS,
    NAMED,
    NESTED,
    NUMBERS,
    RENAMED,
    VALUES,
    Pair,
    number,
    pairs,
    run,
    variants,
)
from tests.schemas.messages import ACCEPTED, FEATURES, TIME, good, raw

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vitalstream_native") is None,
    reason="the native kernel is not built here: run make native, which needs cargo",
)


@pytest.fixture(scope="module")
def flat() -> Pair:
    return Pair(FEATURES, ranges={})


def test_kernel_and_python_agree_on_documents_of_all_kinds() -> None:
    seen, read = run(8_000, derandomize=True)
    assert seen >= 8_000
    assert read > 0.1 * seen  # otherwise the test proves little


def test_kernel_and_python_agree_on_the_corpus_and_damaged_copies() -> None:
    for pair in pairs():
        pair.check([None, b"", *CORPUS])
        for seed, document in enumerate(CORPUS):
            if len(document) < 500:
                pair.check(variants(document, seed))


def test_kernel_and_python_agree_on_numbers_read_and_not_read(flat: Pair) -> None:
    random = Random(7)
    flat.check([raw(f'"heart_rate":{number(random)},"note":{number(random)}') for _ in range(5_000)])
    flat.check([raw(f'"heart_rate":{read},"note":{unread}') for read in NUMBERS for unread in NUMBERS])


def test_kernel_and_python_agree_on_every_value_in_every_place() -> None:
    others = f'"pid":"p1","at":"{TIME}",'
    for pair in pairs():
        pair.check([raw(f'{others}"{name}":{value}') for name in ("spo2", "hr", "note") for value in VALUES])


PLAIN = {
    **{name: value for name, value in ACCEPTED.items() if name.startswith("time ")},
    "plain": good(),
    "nothing measured": good(heart_rate=None, spo2=...),
    "other fields": good(ward="ICU", alarm=True, bed=None, tags=["a", {"b": {}}], note={"heart_rate": "no"}),
    "what is not ASCII": raw('"note":"é \\u00e9 \\"","spo2":97').replace(b'"p1"', '"Söhne"'.encode()),
    "blanks": b' {\n "patient_id" : "p1" ,\t"event_time":"' + TIME.encode() + b'"\r\n, "spo2": 97 }\n',
    "long numbers": raw('"heart_rate":80.12345678901234567890,"spo2":18446744073709551616'),
}


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN)
def test_the_kernel_reads_plain_messages_by_itself(flat: Pair, value: bytes) -> None:
    assert flat.left_to_python([value, good(), value]) == []


MEASURED = f'{{"at":"{TIME}","who":{{"pid":"p1","value":1}},"v":'
NESTED_PLAIN = [
    '{"hr":{"value":1.4,"u":"Hz"},"temp":{"u":"[degF]","value":98.6},"value":16}}',
    '{"temp":{"value":37,"u":"Cel","device":{"u":5,"value":[]}},"hr":null}}',
    '{"hr":{"value":null,"u":null},"temp":{"value":null}},"u":{"v":1,"at":[{"at":0},{"at":1}]}}',
    "null}",
]
NESTED_ODD = [
    '{"hr":{"value":80}}}',  # no unit
    '{"hr":{"value":80,"u":"F"}}}',  # an unknown unit
    '{"hr":{"value":80,"u":"Hz","u":"Hz"}}}',
    '{"hr":80}}',
    r'{"hr":{"value":1.4,"u":"\u0048z"},"temp":{"value":98.6,"u":"[deg\u0046]"}}}',  # which Python converts
    '{"x":{"hr":1,"y":{"hr":{}},"hr":2}}}',  # twice, with others in between
    "{}} x",
]


def test_the_kernel_reads_plain_nested_messages_by_itself() -> None:
    pair = Pair([*NESTED.features], mapping=NESTED, ranges={})
    values = [(MEASURED + rest).encode() for rest in (*NESTED_PLAIN, *NESTED_ODD, *NESTED_PLAIN)]
    pair.check(values)
    assert pair.left_to_python(values) == [*range(len(NESTED_PLAIN), len(NESTED_PLAIN + NESTED_ODD))]
    deep = [b'{"x":' * levels + b"{}" + b"}" * levels for levels in (63, 64)]
    values = [(MEASURED + '{},"x":').encode() + one + b"}" for one in deep]
    pair.check(values)
    assert len(pair.left_to_python(values)) == 1


def test_names_lead_where_their_object_is_whatever_came_before() -> None:
    pair = Pair([*NESTED.features], mapping=NESTED, ranges={})
    nested = (MEASURED + NESTED_PLAIN[0]).encode()
    inner = f'{{"value":1,"u":"Hz","at":"{TIME}","who":{{"pid":"p1"}},"v":{{"hr":{{"value":2,"u":"Hz"}}}}}}'.encode()
    swapped = f'{{"u":5,"value":1,"who":{{"pid":"p1"}},"at":"{TIME}","v":{{"temp":{{"u":"K","value":2}}}}}}'.encode()
    values = [nested, inner, nested, swapped, inner, swapped]
    pair.check(values)
    assert pair.left_to_python(values) == []


def test_only_the_other_messages_are_left_to_python(flat: Pair) -> None:
    assert flat.left_to_python([good(), raw(r'"a\"b":1'), good(), b"{}", good(patient_id="\n")]) == [
        1,
        3,
        4,
    ]


def _renamed(**changes: Any) -> Mapping:
    return Mapping(**{**NAMED, **changes})


UNSUITED = {
    "a header": _renamed(patient_id={"header": "patient"}),
    "a number as id": _renamed(patient_id={"path": "pid", "integer": True}),
    "seconds": _renamed(event_time={"path": "at", "as": "epoch_s"}),
    "a condition": _renamed(when={"kind": ["vitals"]}),
    "a retraction": _renamed(retracted={"kind": ["gone"]}),
    "a place in a list": _renamed(features={"spo2": {"path": "channels.0"}}),
    "one unit for two": _renamed(
        features={name: {"path": name, "unit_path": "unit"} for name in ("spo2", "temperature")}
    ),
    "a split": _renamed(features={"spo2": {"path": "spo2", "split": ["/", 0]}}),
    "one field twice": _renamed(features={"spo2": {"path": "at"}}),
    "a path through a field": _renamed(features={"spo2": {"path": "at.spo2"}}),
    "codes": _renamed(readings={"code": "code", "value": "value"}, features={"spo2": {"codes": ["2708-6"]}}),
}


@pytest.mark.parametrize("mapping", UNSUITED.values(), ids=UNSUITED)
def test_other_shapes_are_left_to_python(mapping: Mapping) -> None:
    with with_kernel(True):
        assert make_scanner([*mapping.features][:2], mapping, dtypes={}, max_bytes=1000) is None
        assert make_scanner(["spo2"], RENAMED, dtypes={}, max_bytes=1000) is not None
        assert make_scanner(["spo2"], None, dtypes={"spo2": "boolean"}, max_bytes=1000) is None


_texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', "\\", '\\",', "],[", "%b", "\x00\x1f"]
)
_rows = st.fixed_dictionaries(
    {
        "patient_ids": _texts,
        "event_times": st.just(TIME),
        "probabilities": st.floats(0, 1) | st.just(math.nan),
    }
    | {"labels": st.sampled_from([0, 1, None]), "implausible": st.lists(_texts, max_size=2)}
    | {"partitions": st.integers(0, 2**31 - 1), "offsets": st.integers(0, 2**63 - 1)}
    | {"features_present": st.integers(0, 9), "no_input": st.just(False) | st.booleans()}
)
_COLUMNS = (
    "patient_ids event_times probabilities labels implausible partitions offsets features_present no_input"
)
_SAME: dict[str, Any] = {
    "threshold": 0.5,
    "model": "a%b",
    "scored_at": TIME,
    "topic": 'to"pic',
    "mapping": None,
}


@settings(deadline=None)
@given(st.lists(_rows, max_size=5))
def test_kernel_and_python_write_the_same_results(rows: list[dict[str, Any]]) -> None:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in _COLUMNS.split()}
    written = []
    for wanted in (False, True):
        with with_kernel(wanted):
            written.append(encode_results(**_SAME, **columns))
    assert written[0] == written[1]


def test_columns_of_different_lengths_are_refused() -> None:
    import vitalstream_native

    for columns in ([b"[1,2]", b"[1]"], [b"[1]", b"[1,2]"], [b"[1", b"[1]"], [b"1", b"[1]"], [b"[1]"]):
        with pytest.raises(ValueError, match="columns"):
            vitalstream_native.rows_of([b"", b"", b""], columns)


def test_a_matrix_of_the_wrong_size_is_refused() -> None:
    import vitalstream_native

    def scanner(*paths: list[str], **units: Any) -> Any:
        return vitalstream_native.Scanner(
            paths, watched=[*"abc"], nested=False, years=(0, 1), max_bytes=9, units=units.get("units", [])
        )

    for shape in [(2, 1), (1, 2)]:
        with pytest.raises(ValueError, match="matrix"):
            scanner(["a"], ["b"], ["c"]).scan([b"{}"], np.empty(shape))
    for paths, why in [
        ([["a"], ["b"], ["a"]], "two lead to one"),
        ([["a"], ["b"], ["a", "c"]], "through another's field"),
        ([["a"], ["b"], ["d"]], "lacks a name"),
        ([["a"], ["b"], []], "is empty"),
        ([["a"]], "too few"),
    ]:
        with pytest.raises(ValueError, match=why):
            scanner(*paths)
    with pytest.raises(ValueError, match="of no feature"):
        scanner(["a"], ["b"], units=[(0, ["c"], {})])


def test_the_kernel_has_the_projects_version() -> None:
    for file in ("pyproject.toml", "native/pyproject.toml"):
        assert tomllib.loads((ROOT / file).read_text())["project"]["version"] == VERSION
    assert re.search(rf'^version = "{VERSION}"$', (ROOT / "native/Cargo.toml").read_text(), re.MULTILINE)
