"""The native kernel against the Python decoder on a million documents: make fuzz.

Hypothesis generates documents from a grammar; these and the corpus are damaged in many ways. For any input,
both must give the same rows, bit for bit, and the same rejects.
"""

import argparse
import re
import struct
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from random import Random
from typing import Any, Final

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schemas.contract import MAX_MESSAGE_BYTES
from schemas.mapping import Mapping
from schemas.messages import plain
from schemas.scanning import make_scanner
from schemas.vitals import Decoder
from tests.kernels import with_kernel
from tests.schemas.messages import ACCEPTED, BAD_TIMES, FEATURES, GOOD_TIMES, REJECTED, TIME

DAMAGED: Final = 40
"""How many damaged ones come with a document."""
_LONG: Final = 5000  # bytes; longer documents are slow, and covered by the corpus
NAMED: Final[dict[str, Any]] = {
    "patient_id": {"path": "pid"},
    "event_time": {"path": "at"},
    "features": {
        "heart_rate": {"path": "hr"},
        "temperature": {"path": "temp", "unit": "[degF]"},
        "spo2": {"path": "ward"},
    },
}
RENAMED: Final = Mapping(**NAMED)
"""Names fields and a unit; the model does not read all of them."""
_NESTED: Final[dict[str, Any]] = {
    "patient_id": {"path": "who.pid"},
    "event_time": {"path": "at"},
    "features": {
        "heart_rate": {"path": "v.hr.value", "unit_path": "v.hr.u", "units": {"bpm": "/min"}},
        "temperature": {"path": "v.temp.value", "unit_path": "v.temp.u"},
        "systolic_bp": {"path": "v.value", "unit": "kPa"},
        "spo2": {"absent": True},
    },
}
NESTED: Final = Mapping(**_NESTED)
"""Goes through objects, with units that come with the values."""
CORPUS: Final = [
    *filter(None, (*ACCEPTED.values(), *(case.value for case in REJECTED.values()))),
]


class Pair:
    """A Python decoder and one with the kernel."""

    def __init__(self, features: Sequence[str], *, mapping: Mapping | None = None, **given: Any) -> None:
        with with_kernel(False):
            self._python = Decoder(features, mapping=mapping, **given)
        with with_kernel(True) as found:
            assert found, "the native kernel is not built here: run make native, which needs cargo"
            self._native = Decoder(features, mapping=mapping, **given)
            scanner = make_scanner(features, mapping, dtypes={}, max_bytes=MAX_MESSAGE_BYTES)
        assert scanner is not None
        self._scanner, self._features = scanner, len(features)

    def check(self, values: Sequence[bytes | None]) -> int:
        """How many values the kernel read by itself. Raises AssertionError if the two decoders differ."""
        python, native = (decode(plain(values)) for decode in (self._python, self._native))
        assert native.rejects == python.rejects
        assert native.patient_ids == python.patient_ids
        assert native.event_times == python.event_times
        assert native.implausible == python.implausible
        assert native.frame.index.equals(python.frame.index)
        assert type(native.frame.index) is type(python.frame.index)
        assert [*native.frame.columns] == [*python.frame.columns]
        assert native.frame.to_numpy().tobytes() == python.frame.to_numpy().tobytes()
        assert not np.isinf(python.frame.to_numpy()).any()
        return len(values) - len(self.left_to_python(values))

    def left_to_python(self, values: Sequence[bytes | None]) -> list[int]:
        """The positions of the values that the kernel does not accept."""
        return self._scanner.scan([*values], np.empty((len(values), self._features)))[2]


def pairs() -> list[Pair]:
    """For flat messages with standard names, flat ones with other names, and nested ones."""
    return [
        Pair(FEATURES, ranges={}),
        Pair(("heart_rate", "temperature"), mapping=RENAMED),
        Pair([*NESTED.features], mapping=NESTED, ranges={}),
    ]


# --- documents


NUMBERS: Final = (
    *(
        "-0",
        "-0.0",
        "0e99999",
        "-0e1",
        "0.0e999999999999",
        "1e-400",
        "-1e-400",
        "5e-324",
        "2.5e-324",
        "1e22",
        "1e23",
    ),
    *(
        "1.7976931348623157e308",
        "2.99e306",
        "-3e306",
        "1.7976931348623159e308",
        "-1e309",
        "9007199254740993",
        "9007199254740993.0",
        "1E5",
    ),
    *(
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "00",
        "-01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
    ),
    *(
        "1e+",
        "0x10",
        "1_0",
        "NaN",
        "9999999999999999999",
        "99999999999999999999",
        "0.00000000000000000000001",
    ),
)
"""Edge cases, and some that are not numbers."""


def number(random: Random) -> str:
    """A number as JSON may write it, often one that is hard to round."""
    kind = random.randrange(7)
    if kind == 0:
        return repr(round(random.uniform(-50, 400), random.randrange(4)))
    if kind == 1:
        return _double(random)
    if kind == 2:
        return str(random.choice([53, 63, 64, 70]).__rpow__(2) + random.randint(-3, 3))
    if kind == 3:
        return _half_way(random)
    if kind == 4:
        return random.choice(NUMBERS)
    digits = "".join(random.choices("0123456789", k=random.randint(1, 40))).lstrip("0") or "0"
    point = random.randrange(len(digits) + 1)
    text = f"{digits[:point] or '0'}.{digits[point:]}" if point < len(digits) else digits
    exponent = random.choice(["", "", f"e{random.randint(-345, 310)}", f"E+{random.randrange(30)}"])
    return random.choice(["", "-"]) + text + exponent


def _double(random: Random) -> str:
    (found,) = struct.unpack("<d", random.randbytes(8))
    return repr(found) if np.isfinite(found) else "0.1"


def _half_way(random: Random) -> str:
    """A number half way between two doubles, or right next to it."""
    low = abs(float(_double(random)))
    if not 1e-20 < low < 1e20:
        low = random.uniform(0, 200)
    with localcontext(prec=200):  # exact
        middle = (Decimal(low) + Decimal(float(np.nextafter(low, np.inf)))) / 2
    return f"{middle:f}" + random.choice(["", "0", "1"] if middle % 1 else [""])


def _words(text: str) -> list[str]:
    return text.split()


_NAMES: Final = _words(
    r"""
    "patient_id" "event_time" "heart_rate" "spo2" "ward" "heart\u005frate" "Heart_rate"
    "pid" "at" "hr" "temp" "temperature" "\u0068r" "é" "a\"b" ""
    """
)
VALUES: Final = _words(
    r"""
    null true false "x" "80" "" "\"spo2\":" "\\" "\u0022" "\u00e9é" "\ud83d\ude00" "\ud800" "}" "😀" NaN -Infinity
    {"spo2":1,"spo2":2} {"hr":1} {"hr":1,"hr":1} [{"patient_id":"p2"},"spo2"] [] {} [[[]]] [1,2.5e3,"a"]
    1e400 -0 -0.0 080 0e99999 1.
    """
)
_BITS: Final = [
    *map(
        str.encode,
        _words(
            r"""
            , : { } [ ] " \ 0 9 . - e + E5 null tru \" \u0022 \u00e \ud800 \n \x / /**/ ' é
            "spo2":1 ,"hr":1 "patient_id":"q"
            """
        ),
    ),
    *(b" ", b"\n", b"\x00", b"\x1f", b"\x7f", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
]


def _object(members: Sequence[tuple[str, str, str]]) -> str:
    return f"{{{','.join(map(''.join, members))}}}"


_ids = ["p1"] * 20 + ["patient-0042", "é" * 64, "é" * 65, "p" * 129, "", r"a\u0062"]
_times = [TIME] * 200 + [*GOOD_TIMES * 5, *BAD_TIMES[:30], "2200-01-01T00:00:00Z", "1899-12-31T00:00:00Z"]
_seeds = st.integers(0, 2**32)
_numbers = _seeds.map(lambda seed: number(Random(seed)))
_values = _numbers | st.sampled_from(VALUES)
_colons = st.sampled_from([":", ":", ":", " : ", ":\n"])
_wild = st.lists(st.tuples(st.sampled_from(_NAMES), _colons, _values), max_size=8)
_read = st.tuples(st.sampled_from(['"heart_rate"', '"spo2"', '"hr"', '"temp"']), _colons, _numbers)
_unread = st.tuples(st.sampled_from(['"bed"', '"note"']), _colons, st.sampled_from(VALUES[:10]) | _numbers)
_tame = st.lists(_read | _unread, max_size=6, unique_by=lambda member: member[0])


_units = st.sampled_from(['"Cel"', '"[degF]"', '"K"', '"/min"', '"bpm"', '"Hz"', '"F"', "null", r'"\u0048z"'])
_measured = st.lists(
    st.tuples(
        st.sampled_from(['"value"', '"u"', '"value"', '"u"', '"hr"', '"id"']), _colons, _numbers | _units
    )
    | st.tuples(st.just('"value"'), _colons, _numbers)
    | st.tuples(st.just('"u"'), _colons, _units),
    max_size=3,
    unique_by=lambda member: member[0],
).map(_object)
_odd = st.sampled_from(
    ["null", "{}", "[]", "[{}]", "5", '"x"', '{"value":1,"value":2}', '{"v":{"v":{},"v":1}}']
)
_vitals = st.lists(
    st.tuples(st.sampled_from(['"hr"', '"temp"']), _colons, _measured | _odd)
    | st.tuples(st.sampled_from(['"value"', '"note"', '"at"']), _colons, _numbers | _odd),
    max_size=4,
    unique_by=lambda member: member[0],
).map(_object)


_OURS: Final = ("patient_id", "event_time", "pid", "at")


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Objects from the grammar: most are ordinary, the others have duplicate names, escapes and odd values."""
    random = Random(draw(_seeds))
    members = [name + colon + value for name, colon, value in draw(_wild if random.random() < 0.2 else _tame)]
    ours = random.choice([_OURS, _OURS, _OURS[:2], _OURS[2:]])
    values = (random.choice(_ids), random.choice(_times)) * 2
    members = [*(f'"{name}":"{value}"' for name, value in zip(ours, values, strict=False)), *members]
    if random.random() < 0.4:
        members.append(f'"who":{{"pid":"{random.choice(_ids)}"}}')
        members.append(f'"v":{draw(_vitals | _vitals | _vitals | _odd)}')
    if random.random() < 0.5:
        random.shuffle(members)
    return f"{{{random.choice([',', ',', ' , ']).join(members)}}}".encode()


def damaged(document: bytes, random: Random) -> bytes:
    """The document with one to three changes of a few bytes, or another number."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        at = random.randrange(len(document) + 1)
        until = min(len(document), at + random.choice([0, 0, 1, 1, 2, 8]))
        part = random.choice(
            [
                b"",
                random.choice(_BITS),
                random.choice(_BITS),
                number(random).encode(),
                document[until : until + random.randrange(30)],
                random.randbytes(1),
            ]
        )
        document = document[:at] + part + document[until:]
    return document


def renumbered(document: bytes, random: Random) -> bytes:
    """The document with all numbers after a colon replaced."""
    return re.sub(rb'(?<="): ?[0-9.eE+-]+', lambda _: b":" + number(random).encode(), document)


def variants(document: bytes, seed: int) -> list[bytes]:
    """A document and damaged copies of it."""
    random = Random(seed)
    change: Callable[[bytes, Random], bytes]
    found = [document]
    for _ in range(DAMAGED):
        change = random.choice([damaged, renumbered])
        found.append(change(document, random))
    return found


_short = st.sampled_from([value for value in CORPUS if len(value) <= _LONG])
_chunks = st.builds(variants, documents() | _short, _seeds)


def run(
    count: int, told: Callable[[int], None] = lambda _: None, *, derandomize: bool = False
) -> tuple[int, int]:
    """Compare about `count` documents. Returns how many were compared, and how often the kernel read one by itself.

    Raises AssertionError with the smallest documents found on which the two differ.
    """
    ours, seen, read = pairs(), 0, 0

    @settings(
        max_examples=-(-count // (DAMAGED + 1)),
        deadline=None,
        database=None,
        derandomize=derandomize,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[*HealthCheck],
    )
    @given(_chunks)
    def compare(values: list[bytes]) -> None:
        nonlocal seen, read
        read += sum(pair.check(values) for pair in ours)
        seen += len(values)
        told(seen)

    compare()
    return seen, read


def main() -> None:
    """Run the comparison and report its progress."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    count: int = parser.parse_args().documents
    began, shown = time.monotonic(), 0

    def told(seen: int) -> None:
        nonlocal shown
        if seen - shown >= 50_000:
            shown = seen
            print(f"{seen:,} of {count:,} documents, {time.monotonic() - began:.0f} s", file=sys.stderr)

    seen, read = run(count, told)
    print(
        f"Python and the native kernel agreed on {seen:,} documents, each read flat and by two mappings; "
        f"the kernel read {read:,} by itself."
    )


if __name__ == "__main__":
    main()
