"""HL7 v2: what is read, what is refused and why. Every number that comes out must be one that `hl7` sees too."""

import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import hl7
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import SettingsError
from broker.settings import Settings
from schemas.contract import CATEGORY, MAX_MESSAGE_BYTES
from schemas.decoding import make_decoder
from schemas.formats.hl7v2 import Hl7Reader
from schemas.mapping import Mapping, load_mapping
from schemas.messages import plain
from schemas.times import TimeKind, is_rfc3339, times_of
from schemas.vitals import Decoded, Decoder, Reject

TIME = "2026-01-05T08:30:00+01:00"
FEATURES: dict[str, Any] = {
    "heart_rate": {"codes": ["LOINC 8867-4", "MDC 147842", "HR"]},
    "temperature": {"codes": ["LOINC 8310-5", "99WARD T"], "units": {"Grad C": "Cel", "ISO+ cel": "Cel"}},
    "spo2": {"codes": ["LOINC 59408-5"]},
}


def reader(**given: Any) -> Decoder:
    mapping = Mapping(**{"features": FEATURES, **given}).in_hl7_times()
    names = [*mapping.features]
    return Decoder(names, mapping=mapping, read=Hl7Reader(names, mapping, max_bytes=MAX_MESSAGE_BYTES))


DECODE = reader()


def read(*messages: str | bytes, decode: Decoder = DECODE) -> Decoded:
    return decode(plain(one if isinstance(one, bytes) else one.encode() for one in messages))


MSH = r"MSH|^~\&|MON|ICU|VS|HOSP|20260105083001+0100||ORU^R01^ORU_R01|M1|P|2.6"
PID = "PID|1||p1^^^HOSP^MR||Doe^Jane||19600101|F"
OBR = "OBR|1|||182777000^monitoring of patient^SCT|||20260105082959+0100"
HR = "OBX|1|NM|8867-4^Heart rate^LN||80|/min^^UCUM|50-120||||F|||20260105083000+0100"
TEMP = "OBX|2|NM|8310-5^Body temperature^LN||36.9|Cel^^UCUM|||||F|||20260105083000+0100"


def oru(*observations: str, msh: str = MSH, pid: str = PID, end: str = "\r") -> str:
    """A message whose segments end with `end`."""
    return "".join(segment + end for segment in (msh, pid, OBR, *(observations or [HR])) if segment)


LOINC_HR = "8867-4^^LN"
NOW = "20260105083000+0100"


def obx(
    value: str,
    *,
    code: str = LOINC_HR,
    unit: str = "/min",
    kind: str = "NM",
    status: str = "F",
    time: str = NOW,
) -> str:
    return f"OBX|1|{kind}|{code}||{value}|{unit}|||||{status}|||{time}"


EIGHTY: dict[str, float] = {"heart_rate": 80}
WARM: dict[str, float] = {"temperature": 36.9}
NOTHING: dict[str, float] = {}

READ: dict[str, tuple[str | bytes, dict[str, float]]] = {
    "one": (oru(), EIGHTY),
    "two": (oru(HR, TEMP), EIGHTY | WARM),
    "LF": (oru(HR, TEMP, end="\n"), EIGHTY | WARM),
    "CR LF": (oru(HR, TEMP, end="\r\n"), EIGHTY | WARM),
    "without an end": (oru()[:-1], EIGHTY),
    "framed by MLLP": (b"\x0b" + oru().encode() + b"\x1c\r", EIGHTY),
    "with a byte order mark": (b"\xef\xbb\xbf" + oru().encode(), EIGHTY),
    "LF in a text": (oru("NTE|1||first\nsecond", HR), EIGHTY),
    "others between": (oru("NTE|1||x", "ZZZ", "", HR, "OBX|3|ST|2951-2^Na^LN||high|||||||F"), EIGHTY),
    "own separators": (
        oru().replace("&", "%").replace("^", "@").replace("~", "!").replace("|", "*").replace("\\", "/-/"[1]),
        EIGHTY,
    ),
    "of an old version": (oru(msh=MSH.replace("ORU^R01^ORU_R01", "ORU").replace("2.6", "2.1")), EIGHTY),
    "with a truncation mark": (oru(msh=MSH.replace("\\&", "\\&#")), EIGHTY),
    "only one mark": (oru(msh=MSH.replace("^~\\&", "^")), EIGHTY),
    "PCD-01": (
        oru(
            "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X",
            "OBX|2|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1|80|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||R|||20260105083000+0100",
            msh=MSH + "||||||||||IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO",
        ),
        EIGHTY,
    ),
    "an alternative code": (oru(obx("80", code="X^Puls^99WARD^8867-4^Heart rate^LN")), EIGHTY),
    "a code without a system": (oru(obx("80", code="HR^Puls")), EIGHTY),
    "a ward's own code": (oru(obx("36.9", code="T^Temp^99WARD", unit="Cel")), WARM),
    "another unit": (oru(obx("98.6", code="8310-5^^LN", unit="[degF]^^UCUM")), {"temperature": 37}),
    "UCUM as the alternative": (
        oru(obx("98.6", code="8310-5^^LN", unit="F^Fahrenheit^L^[degF]^^UCUM")),
        {"temperature": 37},
    ),
    "UCUM next to a code of a device that is not known": (
        oru(obx("36.9", code="8310-5^^LN", unit="999^MDC_DIM_X^MDC^Cel^^UCUM")),
        WARM,
    ),
    "a unit that the mapping explains": (oru(obx("36.9", code="8310-5^^LN", unit="Grad C")), WARM),
    "a unit of another system that the mapping explains": (
        oru(obx("36.9", code="8310-5^^LN", unit="cel^^ISO+")),
        WARM,
    ),
    "only the text of a unit": (oru(obx("36.9", code="8310-5^^LN", unit="^Cel")), WARM),
    "a unit with an annotation": (oru(obx("80", unit="{beats}/min")), EIGHTY),
    "an escape in a code": (oru(obx("80", code=r"8867-4^a\S\b\.br\c\X41\^LN")), EIGHTY),
    "a number in other letters": (oru(obx(" +80.0 ")), EIGHTY),
    "a structured number": (oru(obx("^80", kind="SN")), EIGHTY),
    "a structured number that is equal": (oru(obx("=^80", kind="SN")), EIGHTY),
    "a limit": (oru(obx(">^80", kind="SN")), NOTHING),
    "no value": (oru(obx("")), NOTHING),
    "a null": (oru(obx('""')), NOTHING),
    "no value and no type": (oru(obx("", kind="")), NOTHING),
    "not obtained": (oru(obx("80", status="X")), NOTHING),
    "a repeated value": (oru(obx("80~80")), EIGHTY),
    "twice the same": (oru(HR, HR), EIGHTY),
    "two units": (
        oru(obx("36.9", code="8310-5^^LN", unit="Cel^^UCUM^[degF]^^UCUM")),
        WARM,
    ),  # the first of them
    "one deleted": (oru(HR, obx("36.9", code="8310-5^^LN", status="D")), EIGHTY),
    "a wrong one next to the right one": (oru(obx("200", status="W"), HR), EIGHTY),
    "two PIDs of one patient": (oru(PID, HR), EIGHTY),
    **{f"status {status}": (oru(obx("80", status=status)), EIGHTY) for status in "FPCRSUABV"},
    **{
        f"a name in {charset or 'no charset'}": (
            oru(HR.replace("Heart rate", name), msh=f"{MSH}||||||{charset}").encode(codec),
            EIGHTY,
        )
        for charset, codec, name in [
            ("", "latin-1", "Müller"),
            ("ASCII", "utf-8", "Müller"),
            ("8859/1", "latin-1", "Müller"),
            ("UNICODE UTF-8", "utf-8", "Müller"),
            # contains bytes that are separators elsewhere
            ("GB 18030-2000", "gb18030", b"\x81|".decode("gb18030")),
            ("BIG-5", "big5", b"\xa4|\xa5\\".decode("big5")),
            ("~ISO IR87", "iso2022_jp", b"\x1b$B0|0^\x1b(B".decode("iso2022_jp")),
        ]
    },
}


@pytest.mark.parametrize("name", READ)
def test_readable_messages(name: str) -> None:
    message, expected = READ[name]
    decoded = read(oru(), message, oru())
    assert not decoded.rejects
    assert decoded.patient_ids == ["p1"] * 3
    assert decoded.event_times == [TIME] * 3 or name == "not obtained"
    row = decoded.frame.iloc[1]
    assert {name: value for name, value in row.items() if not math.isnan(value)} == pytest.approx(expected)


REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    "nothing": (b"", "empty", ""),
    "too many bytes": (b"x" * (MAX_MESSAGE_BYTES + 1), "too_large", ""),
    "JSON": (b'{"heart_rate": 80}', "not_decodable", "MSH"),
    "a batch": (f"BHS|^~\\&\r{oru()}BTS|1\r", "not_decodable", "MSH"),
    "two messages": (oru() + oru(), "not_decodable", "MSH"),
    "a part of a message": (oru(HR, "DSC|2"), "not_decodable", "DSC"),
    "only a header": ("MSH", "not_decodable", "MSH"),
    "nothing in the header": ("MSH|^~\\&", "missing_field", "MSH-9"),
    "no separators": ("MSH||MON|", "not_decodable", "MSH-2"),
    "one separator twice": (oru(msh=MSH.replace("^~", "^^")), "not_decodable", "MSH-2"),
    "a letter as separator": (oru(msh=MSH.replace("^~\\&", "^~\\A")), "not_decodable", "MSH-2"),
    "another message": (oru(msh=MSH.replace("ORU^R01^ORU_R01", "ADT^A01")), "not_for_us", "MSH-9"),
    "an alarm": (oru(msh=MSH.replace("ORU^R01^ORU_R01", "ORU^R40^ORU_R40")), "not_for_us", "MSH-9"),
    "an unknown charset": (oru(msh=MSH + "||||||KOI8", pid=PID.replace("Doe", "Dö")), "not_decodable", "MSH-18"),
    "not in the charset it names": (
        oru(msh=MSH + "||||||UNICODE UTF-8", pid=PID.replace("Doe", "Dö")).encode("latin-1"),
        "not_decodable",
        "MSH-18",
    ),
    "an id in an unknown charset": (oru(pid="PID|1||pä1").encode("latin-1"), "not_decodable", "patient_id"),
    "an unknown escape in an id": (oru(pid=r"PID|1||p\Z1\1"), "not_decodable", "patient_id"),
    "half an escape in an id": (oru(pid=r"PID|1||WARD\p1"), "not_decodable", "patient_id"),
    "another code": (oru(obx("140", code="2951-2^Na^LN")), "not_for_us", ""),
    "our code in another system": (oru(obx("80", code="8867-4^^L")), "not_for_us", ""),
    "our code without its system": (oru(obx("80", code="8867-4")), "not_for_us", ""),
    "no results": (oru("NTE|1||x"), "not_for_us", ""),
    "codes of two features": (oru(obx("80", code="8867-4^^LN^8310-5^^LN")), "conflicting", "temperature"),
    "deleted": (oru(obx("80", status="D")), "retracted", "OBX-11"),
    "deleted, and one pending": (oru(obx("80", status="D"), obx("", status="I")), "retracted", "OBX-11"),
    "pending, and one deleted": (oru(obx("", status="I"), obx("80", status="D")), "not_for_us", "OBX-11"),
    "of another patient": (oru(obx("80", status="W")), "retracted", "OBX-11"),
    "pending": (oru(obx("", status="I")), "not_for_us", "OBX-11"),
    "no status": (oru(obx("80", status="")), "missing_field", "OBX-11"),
    "an unknown status": (oru(obx("80", status="Q")), "wrong_type", "OBX-11"),
    "two letters as status": (oru(obx("80", status="FP")), "wrong_type", "OBX-11"),
    "a name of a segment that only begins like ours": (oru(HR.replace("OBX", "OBX^")), "not_for_us", ""),
    "a short OBX": (oru("OBX|1|NM|8867-4^^LN||80|/min"), "missing_field", "OBX-11"),
    "a limit as number": (oru(obx(">100")), "wrong_type", "heart_rate"),
    "a decimal comma": (oru(obx("36,9", code="8310-5^^LN", unit="Cel")), "wrong_type", "temperature"),
    "an exponent": (oru(obx("8e1")), "wrong_type", "heart_rate"),
    "an underscore": (oru(obx("8_0")), "wrong_type", "heart_rate"),
    "NaN": (oru(obx("nan")), "wrong_type", "heart_rate"),
    "infinity": (oru(obx("9" * 400)), "wrong_type", "heart_rate"),
    "digits of another alphabet": (
        oru(obx("\u0668\u0660"), msh=MSH + "||||||UNICODE UTF-8"),
        "wrong_type",
        "heart_rate",
    ),
    "too large in the model's unit": (oru(obx("3" + "0" * 306, unit="Hz")), "wrong_type", "heart_rate"),
    "a text": (oru(obx("80", kind="ST")), "wrong_type", "heart_rate"),
    "a value without a type": (oru(obx("80", kind="")), "wrong_type", "heart_rate"),
    "a ratio": (oru(obx("^80^:^1", kind="SN")), "wrong_type", "heart_rate"),
    "a range": (oru(obx("^80^-^90", kind="SN")), "wrong_type", "heart_rate"),
    "a structured number in words": (oru(obx("about^80", kind="SN")), "wrong_type", "heart_rate"),
    "a limit in words": (oru(obx(">^x", kind="SN")), "wrong_type", "heart_rate"),
    "no unit": (oru(obx("80", unit="")), "unknown_unit", "heart_rate"),
    "a null as unit": (oru(obx("80", unit='""')), "unknown_unit", "heart_rate"),
    "a unit that is no UCUM": (oru(obx("80", unit="bpm")), "unknown_unit", "heart_rate"),
    "farad": (oru(obx("98.6", code="8310-5^^LN", unit="F")), "unknown_unit", "temperature"),
    "UCUM's code in another system": (oru(obx("80", unit="/min^^L")), "unknown_unit", "heart_rate"),
    "a unit of another quantity": (oru(obx("80", unit="Cel")), "unknown_unit", "heart_rate"),
    "two values": (oru(HR, obx("81")), "conflicting", "heart_rate"),
    "two values in one": (oru(obx("80~81")), "conflicting", "heart_rate"),
    "two values in two units": (oru(obx("80"), obx("80", unit="Hz")), "conflicting", "heart_rate"),
    "two patients": (oru(HR, "PID|2||p2^^^HOSP^MR", TEMP), "conflicting", "patient_id"),
    "two ids": (oru(pid="PID|1||p1^^^HOSP^MR~77^^^INS^SS"), "conflicting", "patient_id"),
    "no patient": (oru(pid=""), "missing_field", "patient_id"),
    "no id": (oru(pid="PID|1|p1|^^^HOSP^MR"), "missing_field", "patient_id"),
    "a null as id": (oru(pid='PID|1||""'), "missing_field", "patient_id"),
    "an id that is too long": (oru(pid="PID|1||" + "9" * 129), "wrong_type", "patient_id"),
    "two times": (
        oru(HR, obx("36.9", code="8310-5^^LN", unit="Cel", time="20260105083101+0100")),
        "conflicting",
        "event_time",
    ),
    "a day": (oru(obx("80", time="20260105")), "bad_time", "event_time"),
    "a null as time": (oru(obx("80", time='""')), "bad_time", "event_time"),
    "an invalid time": (oru(obx("80", time="20260230083000+0100")), "bad_time", "event_time"),
    "an impossible year": (oru(obx("80", time="18260105083000+0100")), "bad_time", "event_time"),
    "no zone anywhere": (
        oru(obx("80", time="20260105083000"), msh=MSH.replace("+0100", "")),
        "bad_time",
        "event_time",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_messages(name: str) -> None:
    message, reason, field = REFUSED[name]
    decoded = read(oru(), message, oru())
    assert [(one.position, str(one.reason), one.field) for one in decoded.rejects] == [(1, reason, field)]
    assert decoded.frame["heart_rate"].tolist() == [80, 80]


NO_OBX_14 = "OBX|1|NM|8867-4^^LN||80|/min|||||F"
OBR_WITHOUT = "OBR|2|||x"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (oru(), TIME),
        (oru(NO_OBX_14), "2026-01-05T08:29:59+01:00"),
        (oru(OBR_WITHOUT, NO_OBX_14), "2026-01-05T08:30:01+01:00"),
        (oru(NO_OBX_14, "OBR|2||||||20260105083020+0100", NO_OBX_14), "2026-01-05T08:30:20+01:00"),
        (oru(obx("80", time="20260105083000.25+0000^S")), "2026-01-05T08:30:00.25+00:00"),
        (oru(obx("80", time="202601050830")), TIME),  # in the zone of MSH-7
        (oru(obx("80", time="20260105023000-0500"), TEMP), "2026-01-05T02:30:00-05:00"),
        (
            oru(HR, obx("36.9", code="8310-5^^LN", unit="Cel", time="20260105083059+0100")),
            "2026-01-05T08:30:59+01:00",
        ),
        (oru(obx("80", status="X")), TIME),
        (oru(OBR_WITHOUT, NO_OBX_14, msh=MSH.replace("20260105083001+0100", "")), "missing_field"),
    ],
)
def test_times_come_from_obx_14_else_obr_7_else_msh_7(message: str, expected: str) -> None:
    decoded = read(message)
    assert [*decoded.event_times, *(str(one.reason) for one in decoded.rejects)] == [expected]


def test_times_without_a_zone_are_read_if_the_mapping_names_the_zone() -> None:
    nowhere = oru(obx("80", time="20260705093000"), msh=MSH.replace("+0100", ""))
    decoded = read(nowhere, oru(), decode=reader(event_time={"zone": "Europe/Berlin"}))
    assert decoded.event_times == ["2026-07-05T09:30:00+02:00", TIME]


@pytest.mark.parametrize(
    ("pid", "type_", "expected"),
    [
        ("PID|1||p1", None, "p1"),
        ("PID|1||p1~p1", None, "p1"),
        ("PID|1||p1^^^HOSP^MR~77^^^INS^SS", "MR", "p1"),
        ("PID|1||p1^^^HOSP&1.2.3&ISO^MR~77^^^INS^SS", "HOSP", "p1"),
        ("PID|1||p1^^^HOSP^MR~77^^^INS^SS", "SS", "77"),
        ("PID|1||p1^^^HOSP^MR", "PI", "missing_field"),
        ("PID|1||p1^^^HOSP^MR~p2^^^CLINIC^MR", "MR", "conflicting"),
        (r"PID|1||a\T\b\S\c\E\d\R\e\F\f", None, "a&b^c\\d~e|f"),
        ("PID|1||p/1-2", None, "p/1-2"),
    ],
)
def test_patients(pid: str, type_: str | None, expected: str) -> None:
    decoded = read(oru(pid=pid), decode=reader(patient_id={"type": type_}))
    assert [*decoded.patient_ids, *(str(one.reason) for one in decoded.rejects)] == [expected]


def test_an_id_is_decoded_in_the_messages_charset() -> None:
    message = oru(msh=MSH + "||||||8859/1", pid="PID|1||pä1").encode("latin-1")
    assert read(message).patient_ids == ["pä1"]


def test_texts_are_read_for_a_model_that_uses_them() -> None:
    features: dict[str, Any] = {"unit": {"codes": ["U"], "model_unit": "1"}}
    mapping = Mapping(features=features).in_hl7_times()
    read_ = Hl7Reader(["unit"], mapping, max_bytes=MAX_MESSAGE_BYTES)
    decode = Decoder(["unit"], mapping=mapping, dtypes={"unit": CATEGORY}, read=read_)
    decoded = read(
        oru(obx(r"ICU\T\1", code="U", kind="ST", unit="")), oru(obx("84", code="U", unit="")), decode=decode
    )
    assert decoded.frame["unit"].tolist() == ["ICU&1"]
    assert [(one.reason, one.field) for one in decoded.rejects] == [("wrong_type", "unit")]


def test_caches_are_bounded() -> None:
    decode = reader()
    for number in range(3000):
        read(oru(obx(f"80.{number}", code=f"{number}{'x' * 200 * (number % 2)}^^L"), HR), decode=decode)
    dialect = decode.read._dialect("|", "^~\\&")  # type: ignore[attr-defined]
    for remembered in (dialect.numbers, dialect._known):
        assert len(remembered) <= 1000
        assert max(map(len, remembered)) <= 100
    assert read(oru(HR, TEMP), decode=decode).frame.iloc[0].tolist()[:2] == [80, 36.9]


def test_the_built_in_mapping_loads(tmp_path: Path) -> None:
    assert len(load_mapping(Path("hl7v2"), value_format="hl7v2").features) == 8
    decoded = make_decoder(Settings(value_format="hl7v2", mapping=Path("hl7v2")))(plain([oru().encode()]))
    assert decoded.event_times == [TIME]
    (wrong := tmp_path / "ward.toml").write_text('event_time = { as = "hl7" }\n[features]\n')
    with pytest.raises(SettingsError, match=r"event_time\.as is not for --value-format hl7v2"):
        make_decoder(Settings(value_format="hl7v2", mapping=wrong))


_BASE = [
    oru(HR, TEMP),
    oru(obx("80~81"), obx("^97", code="59408-5^^LN", unit="%", kind="SN")),
    oru(NO_OBX_14),
]
_MARKS = [
    "|",
    "^",
    "~",
    "\\",
    "&",
    "\r",
    "\n",
    "OBX|",
    "PID|",
    "MSH|",
    '""',
    "NM",
    "SN",
    "ST",
    ">",
    "=",
    "\\E\\",
    ",",
]
_WORDS = ["84", "-1.5", "1e3", "8867-4^^LN", "/min", "Cel", "F", "D", NOW, "20260105", "\x00", "ä"]
_pieces = st.sampled_from(_MARKS + _WORDS) | st.text(max_size=3)


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(_BASE))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(_pieces) + text[at + draw(st.integers(0, 8)) :]
    return text


def _seen(text: str) -> set[float] | None:
    """The numbers that `hl7` sees in OBX-5; None if it can't read the message, for example with fewer separators."""
    segments = text.strip("\r\n \t\x0b\x1c")
    segments = segments if "\r" in segments else segments.replace("\n", "\r")
    try:
        message = hl7.parse(segments)
    except (hl7.HL7Exception, AssertionError, IndexError):
        return None
    if segments[8:9] != segments[3:4]:
        return None
    values = [str(segment[5]) for segment in message if str(segment[0]).strip() == "OBX" and len(segment) > 5]
    found: set[float] = set()
    for part in re.split(f"[{re.escape(segments[4:6])}]", segments[4].join(values)):
        with suppress(ValueError):
            found.add(float(part))
    return found


@settings(deadline=None, max_examples=200)
@given(st.lists(_mutated(), min_size=1, max_size=3))
def test_every_number_read_is_one_the_oracle_sees(texts: list[str]) -> None:
    messages = [text.encode("utf-8", "surrogatepass") for text in texts]
    together, alone = read(*messages, decode=reader()), [read(one) for one in messages]
    assert together.rejects == [
        Reject(i, r.reason, r.field) for i, each in enumerate(alone) for r in each.rejects
    ]
    rows = [each.frame.to_numpy() for each in alone]
    np.testing.assert_array_equal(together.frame.to_numpy(), np.vstack(rows))
    for text, each in zip(texts, alone, strict=True):
        numbers = each.frame.to_numpy().ravel()
        if not each.rejects and (seen := _seen(text)) is not None:
            assert {*numbers[~np.isnan(numbers)].tolist()} <= seen


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=80) | st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=3)))
def test_no_bytes_raise(change: Any) -> None:
    value = oru(HR, TEMP, msh=MSH + "||||||UNICODE UTF-8").encode()
    if isinstance(change, tuple):
        at, put = change
        value = value[:at] + put + value[at + len(put) :]
    else:
        value = b"MSH|^~\\&" + change
    decoded = read(value)
    assert len(decoded.rejects) + len(decoded.frame) == 1


_parts = st.sampled_from(["20260105", "20240229", "20260229", "18990105", "2026010"])
_clocks = st.sampled_from(["0830", "2460", "08", "0830\n"])
_seconds = st.sampled_from(["00", "60", "61", "00.25", "", "0"])
_zones = st.sampled_from(["+0100", "-0530", "+2400", "+0160", "Z", "", "+01:0"])
_times = st.builds("".join, st.tuples(_parts, _clocks, _seconds, _zones)) | st.text(
    "0123456789+-.Z", max_size=20
)


@settings(deadline=None)
@given(st.lists(_times | st.none() | st.integers(), max_size=6), st.sampled_from([None, "Europe/Berlin"]))
def test_times_are_read_together_as_one_by_one(times: list[Any], zone: str | None) -> None:
    convert = times_of(TimeKind.HL7, ZoneInfo(zone) if zone else None)
    texts, wrong = convert(times)
    for row, time in enumerate(times):
        (text,), alone = convert([time])
        assert wrong.get(row) == alone.get(0)
        if row not in wrong:
            assert texts[row] == text
            assert is_rfc3339(text)
            assert re.sub(r"[^0-9]", "", text).startswith(re.sub(r"[^0-9].*", "", time))
