"""Replay and publish on a real broker."""

import gzip
import io
import json
import os
import re
import signal
import threading
import tracemalloc
from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.errors import SettingsError, TopicError
from broker.local import LocalKafka
from broker.settings import Settings
from broker.topics import create_topics
from producer.arrivals import AsArrived
from producer.pacing import Pacer, at_rate, by_event_time
from producer.physionet import FORMATS
from producer.publish import PublishSummary, Refusal, publish
from producer.replay import Progress, encode, replay
from producer.sender import DeliveryError, Sender
from producer.sources import TABLES, Record, SourceError, find_source
from schemas.contract import MAX_MESSAGE_BYTES, STANDARD_FEATURES, Reason
from tests.conftest import fresh_settings
from tests.kafka import read_all, wait_until
from tests.producer.files import WRITERS, simulated, stays, write_csv, write_ndjson, write_parquet
from tests.schemas import avro
from tests.schemas.messages import TIME, decoder, good
from tests.vitalstream.command import OnTerminal, Running, vitalstream
from vitalstream import produce
from vitalstream.produce import replay as send_files

pytestmark = pytest.mark.kafka

DEFAULTS: dict[str, Any] = {
    "layout": "plain", "rate": None, "speed": None, "poisson": False, "skip": 0, "limit": None, "repeat": 1, "seed": 0,
    "all_variables": False, "keep_going": False, "as_arrived": False, "json": False,
}  # fmt: skip


def arrived(settings: Settings) -> list[Any]:
    return read_all(settings.bootstrap_servers, settings.input_topic)


def by_patient(messages: list[Any]) -> dict[bytes, list[bytes]]:
    """Values in order, by key; each patient's are all in one partition."""
    values, partitions = defaultdict(list), defaultdict(set)
    for message in messages:
        values[message.key()].append(message.value())
        partitions[message.key()].add(message.partition())
    assert all(len(found) == 1 for found in partitions.values())
    return values


def expected(records: Any, times: int = 1) -> dict[bytes | None, list[bytes]]:
    values = defaultdict(list)
    for _ in range(times):
        for record in records:
            key, value = encode(record)
            values[key].append(value)
    return values


@pytest.mark.parametrize(
    ("name", "write"), [("a.csv", write_csv), ("a.parquet", write_parquet), ("a.ndjson", write_ndjson)]
)
def test_every_row_arrives_once_in_each_patients_order(
    settings: Settings, tmp_path: Path, name: str, write: Any
) -> None:
    records = simulated(3000, patients=30)
    write(tmp_path / name, records)
    summary = replay(settings, find_source([tmp_path / name], TABLES))
    assert (summary.sent, summary.acknowledged) == (3000, 3000)
    assert summary.rate == pytest.approx(3000 / summary.seconds)
    messages = arrived(settings)
    assert {key: [*map(orjson.loads, values)] for key, values in by_patient(messages).items()} == {
        key: [*map(orjson.loads, values)] for key, values in expected(records).items()
    }
    assert decoder(STANDARD_FEATURES)([message.value() for message in messages]).rejects == []


@pytest.mark.parametrize("layout", WRITERS)
def test_physionet_files_arrive_whole(settings: Settings, tmp_path: Path, layout: str) -> None:
    simulation = stays()
    WRITERS[layout](tmp_path, simulation)
    source = find_source(
        [tmp_path], FORMATS["physionet2019" if layout in ("psv", "hourly") else "physionet2012"]
    )
    replay(settings, source)
    messages = arrived(settings)
    assert by_patient(messages) == expected(source)
    assert len(messages) == sum(len(stay.hours) for stay in simulation)
    assert decoder(STANDARD_FEATURES)([message.value() for message in messages]).rejects == []


def test_as_arrived_sends_the_devices_messages_and_counts_the_rows(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = simulated(100)
    write_csv(tmp_path / "a.csv", [*records, {**dict.fromkeys(records[0]), "patient_id": "p"}])
    messages = [*AsArrived(records, seed=3)]
    sent = DEFAULTS | {"as_arrived": True, "seed": 3, "skip": 10}
    send_files(settings, [tmp_path], **sent | {"limit": 20, "json": True})
    shown = json.loads(capsys.readouterr().out)
    send_files(settings, [tmp_path], **sent | {"skip": 30})
    assert f"sent {len(messages) - 30:,}, acknowledged" in (out := capsys.readouterr().out)
    assert "101 rows read and split into one message per device; 1 without a measurement were left out" in out
    assert (shown["sent"], shown["rows_without_measurement"]) == (20, 0)
    assert 10 < shown["rows_read"] <= 100
    assert by_patient(arrived(settings)) == expected(messages[10:])


@pytest.mark.parametrize(
    ("repeat", "limit", "sent"), [(3, None, 300), (1, 70, 70), (3, 150, 150), (1, 900, 100)]
)
def test_repeat_and_limit(settings: Settings, repeat: int, limit: int | None, sent: int) -> None:
    records = simulated(100)
    summary = replay(settings, records, repeat=repeat, limit=limit)
    assert summary.sent == summary.acknowledged == sent
    assert by_patient(arrived(settings)) == expected((records * repeat)[:limit])


def test_a_paced_replay_loses_nothing_and_reports_its_progress(settings: Settings) -> None:
    told: list[Progress] = []
    records = simulated(1000, patients=50) * 20
    summary = replay(settings, records, pacer=Pacer(at_rate(20_000)), on_progress=told.append)
    assert summary.sent == summary.acknowledged == len(arrived(settings)) == 20_000
    assert summary.seconds >= 19_999 / 20_000 - 0.002  # the schedule's length: never faster than requested
    assert [progress.sent for progress in told] == sorted(progress.sent for progress in told)
    assert (told[-1].sent, told[-1].acknowledged) == (20_000, 20_000)
    assert len(told) > 2


def test_keys_land_where_java_clients_put_them(settings: Settings) -> None:
    """Kafka's own murmur2 vectors (UtilsTest): the hash without its sign, modulo the number of partitions."""
    hashes = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    records = [{"patient_id": key, "event_time": "2026-01-01T00:00:00Z"} for key in hashes]
    replay(settings, records)
    places = {message.key().decode(): message.partition() for message in arrived(settings)}
    assert places == {key: (value & 0x7FFFFFFF) % 4 for key, value in hashes.items()}


def test_a_record_without_a_patient_is_passed_on_without_a_key(settings: Settings) -> None:
    replay(settings, [{"event_time": "t"}, {"patient_id": ""}, {"patient_id": None}])
    assert [message.key() for message in arrived(settings)] == [None] * 3


def test_a_stop_keeps_what_was_sent(settings: Settings) -> None:
    stop = threading.Event()

    def endless() -> Iterator[Record]:
        for number in count():
            if number == 5000:
                stop.set()
            yield {"patient_id": f"p{number % 7}", "event_time": "t", "number": number}

    summary = replay(settings, endless(), stopped=stop.is_set)
    assert 5000 <= summary.sent == summary.acknowledged < 6000
    numbers = sorted(orjson.loads(message.value())["number"] for message in arrived(settings))
    assert numbers == [*range(summary.sent)]


@pytest.mark.parametrize("limit", [None, 250])
def test_a_stopped_replay_says_how_to_continue(settings: Settings, tmp_path: Path, limit: int | None) -> None:
    write_ndjson(tmp_path / "a.ndjson", simulated(300))
    command = ["replay", str(tmp_path), "--bootstrap-servers", settings.bootstrap_servers]
    command += ["--input-topic", settings.input_topic, *([] if limit is None else ["--limit", str(limit)])]
    with Running(*command, "--rate", "10") as running:
        wait_until(lambda: arrived(settings), what="the first message")
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0
    (sent,) = map(int, re.findall(r"^sent ([0-9]+), acknowledged \1 ", running.out))
    (rest,) = re.findall(r"^stopped before the end: continue with (.*)$", running.out, re.MULTILINE)
    assert sent < 250
    assert rest == f"--skip {sent}" + ("" if limit is None else f" --limit {limit - sent}")
    again = vitalstream(*command[:6], *rest.split(), "--json")
    assert orjson.loads(again.stdout)["next_skip"] is None
    assert by_patient(arrived(settings)) == expected(simulated(300)[:limit])


def unacknowledged(shown: str) -> int:
    """How many messages are sent but not acknowledged, according to the progress bar."""
    sent, acknowledged = (re.findall(r"([0-9,]+) sent, ([0-9,]+) acknowledged", shown) or [("0", "0")])[-1]
    return int(sent.replace(",", "")) - int(acknowledged.replace(",", ""))


def test_a_replay_stopped_while_the_broker_hangs_says_what_was_acknowledged(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "a.ndjson", simulated(2000))
    with LocalKafka(fast_start=True) as kafka:
        settings = fresh_settings(kafka.bootstrap_servers)
        create_topics(settings, replication_factor=1)
        command = ["replay", str(tmp_path), "--bootstrap-servers", settings.bootstrap_servers]
        command += ["--input-topic", settings.input_topic]
        running = OnTerminal(*command, "--rate", "200")
        wait_until(lambda: arrived(settings), what="the first message")
        assert kafka.pid is not None
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            before = len(running.text)
            wait_until(
                lambda: unacknowledged(running.text[before:]) > 20, what="messages without acknowledgement"
            )
            running.process.send_signal(signal.SIGINT)
            assert running.end() == 1
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        told = r"not acknowledged within 5 s; .*; sent (\d+), of which the brokers acknowledged (\d+); "
        found = re.search(told + r"--skip (\d+) .* up to (\d+) a second time", running.text)
        assert found, running.text
        sent, acknowledged, skip, again = map(int, found.groups())
        assert skip <= acknowledged < sent == skip + again
        assert vitalstream(*command, "--skip", str(skip)).returncode == 0
        there = {message.value() for message in arrived(settings)}
        assert len(there) == 2000
        assert len(arrived(settings)) <= 2000 + again


def test_a_stop_interrupts_a_wait_of_hours(settings: Settings) -> None:
    records = [{"patient_id": "p", "event_time": f"2026-01-01T0{hour}:00:00Z"} for hour in range(5)]
    asked = count()
    summary = replay(settings, records, pacer=Pacer(by_event_time(1)), stopped=lambda: next(asked) > 3)
    assert summary.sent == summary.acknowledged == len(arrived(settings)) == 1


def test_everything_before_a_bad_line_is_sent(settings: Settings, tmp_path: Path) -> None:
    write_ndjson(tmp_path / "a.ndjson", simulated(10))
    with (tmp_path / "a.ndjson").open("ab") as file:
        file.write(b"not json\n")
    with pytest.raises(SourceError, match=r"line 11 .*; sent 10 before that: continue with --skip 10"):
        replay(settings, find_source([tmp_path], TABLES))
    assert len(arrived(settings)) == 10


def test_continuing_after_a_bad_line_sends_the_rest_once(settings: Settings, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.ndjson", tmp_path / "good.ndjson"
    write_ndjson(good, simulated(20))
    lines = good.read_bytes().splitlines(keepends=True)
    bad.write_bytes(b"".join([*lines[:12], b"not json\n", *lines[13:]]))
    replay(settings, find_source([good], TABLES), limit=5)
    with pytest.raises(SourceError, match=r"sent 7 before that: continue with --skip 12$"):
        replay(settings, find_source([bad], TABLES), skip=5)
    replay(settings, find_source([good], TABLES), skip=12)
    assert by_patient(arrived(settings)) == expected(find_source([good], TABLES))


def test_a_small_file_with_a_bad_line_sends_nothing(settings: Settings, tmp_path: Path) -> None:
    write_ndjson(tmp_path / "a.ndjson", simulated(10))
    with (tmp_path / "a.ndjson").open("ab") as file:
        file.write(b"not json\n")
    with pytest.raises(
        SourceError, match=r"line 11 is not a JSON object; correct or remove it; nothing was sent$"
    ):
        send_files(settings, [tmp_path], **DEFAULTS)
    assert arrived(settings) == []


def test_a_column_that_only_looks_like_a_standard_feature_is_sent_and_named(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ndjson(
        tmp_path / "a.ndjson", [{"patient_id": "p", "event_time": "2026-01-01T00:00:00Z", "SpO2": 97}]
    )
    send_files(settings, [tmp_path], **DEFAULTS)
    assert capsys.readouterr().err.startswith("column 'SpO2' is not spo2: it has S in place of s; ")
    assert orjson.loads(arrived(settings)[0].value())["SpO2"] == 97


def test_rows_beyond_the_limit_are_not_checked(settings: Settings, tmp_path: Path) -> None:
    write_ndjson(tmp_path / "a.ndjson", simulated(10))
    with (tmp_path / "a.ndjson").open("ab") as file:
        file.write(b"not json\n")
    send_files(settings, [tmp_path], **DEFAULTS | {"skip": 4, "limit": 6})
    assert len(arrived(settings)) == 6


def test_only_the_first_messages_of_a_long_file_are_checked(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compressed files too: the uncompressed size counts."""
    monkeypatch.setattr(produce, "CHECKED_FIRST", 5)
    lines = [orjson.dumps(record) for record in simulated(10)]
    for bad, said in ((4, "; nothing was sent"), (5, "; sent 5 before that: continue with --skip 5")):
        content = b"\n".join([*lines[:bad], b"not json", *lines[bad:]])
        (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(content))
        with pytest.raises(SourceError, match=f"line {bad + 1} .*{said}$"):
            send_files(settings, [tmp_path], **DEFAULTS)
    assert len(arrived(settings)) == 5


@pytest.mark.parametrize("layout", FORMATS)
def test_keep_going_is_refused_for_formats_with_nothing_to_pass_on(
    settings: Settings, tmp_path: Path, layout: str
) -> None:
    with pytest.raises(SettingsError, match=f"--keep-going: {layout} files have no event times"):
        send_files(settings, [tmp_path], **DEFAULTS | {"layout": layout, "keep_going": True})


def test_skipping_more_than_there_is_says_so(settings: Settings, tmp_path: Path) -> None:
    write_ndjson(tmp_path / "a.ndjson", simulated(10))
    with pytest.raises(SettingsError, match="--skip 10: the files have no more messages"):
        send_files(settings, [tmp_path], **DEFAULTS | {"skip": 10})
    assert arrived(settings) == []


@pytest.mark.parametrize("accepted", ["2000", "5000000"])  # refused first by the client, then by the broker
def test_an_undelivered_message_is_an_error(settings: Settings, accepted: str) -> None:
    limited = settings.model_copy(update={"kafka": {"message.max.bytes": accepted}})
    notes = ["", "SECRET" * 500_000]
    records: list[Record] = [{"patient_id": "p", "event_time": "t", "note": note} for note in notes]
    with pytest.raises(DeliveryError, match="MSG_SIZE_TOO_LARGE") as error:
        replay(limited, records)
    assert error.value.exit_code == 1
    assert error.value.acknowledged < len(records)
    assert "SECRET" not in str(error.value)


def test_the_skip_suggested_after_a_failed_delivery_omits_nothing(settings: Settings) -> None:
    limited = settings.model_copy(update={"kafka": {"message.max.bytes": "5000000"}})
    records: list[Record] = [{"patient_id": f"p{n % 9}", "event_time": "t", "number": n} for n in range(200)]
    for number in (100, 150):
        records[number]["note"] = "x" * 3_000_000  # more than the broker accepts
    with pytest.raises(DeliveryError, match="MSG_SIZE_TOO_LARGE") as error:
        replay(limited, iter(records[7:]), skip=3)
    skip, again = map(
        int, re.findall(r"--skip ([0-9]+) .* up to ([0-9]+) a second time$", str(error.value))[0]
    )
    there = {orjson.loads(message.value())["number"] for message in arrived(settings)}
    assert there >= {*range(10, 7 + skip)}
    assert 3 < skip <= 93
    assert error.value.acknowledged == len(there)
    assert error.value.sent == skip - 3 + again
    assert f"sent {error.value.sent}, of which the brokers acknowledged {len(there)};" in str(error.value)


def test_everything_before_a_message_the_client_refuses_is_sent(settings: Settings) -> None:
    records: list[Record] = [{"patient_id": f"p{n % 9}", "event_time": "t"} for n in range(50)]
    records[40]["note"] = "x" * 3_000_000
    with pytest.raises(DeliveryError, match=r"sent 40 before that: continue with --skip 40$"):
        replay(settings, records)
    assert len(arrived(settings)) == 40


def test_abandoned_messages_are_distinguished_from_acknowledged_ones(settings: Settings) -> None:
    patient = settings.model_copy(update={"kafka": {"linger.ms": "20000"}})
    sender = Sender(patient, topic=settings.input_topic)
    assert all(sender.send(b"p", b"{}") for _ in range(40))
    sender.flush(30)
    assert sender.acknowledged_first == 40
    assert all(sender.send(b"p", b"{}") for _ in range(20))
    with pytest.raises(DeliveryError, match="not acknowledged within 0 s"):
        sender.flush(0)
    assert (sender.sent, sender.acknowledged) == (60, 40)
    assert 16 < sender.acknowledged_first <= 40
    assert len(arrived(settings)) == 40


def test_publish_says_what_arrived_before_a_failed_delivery(settings: Settings) -> None:
    limited = settings.model_copy(update={"kafka": {"message.max.bytes": "1500"}})
    lines = [GOOD] * 3 + [GOOD.replace(b"p1", b"p2").replace(b'"a"', b'"' + b"a" * 2000 + b'"')] + [GOOD]
    with pytest.raises(
        DeliveryError, match=r"sent 3, of which the brokers acknowledged 3, without a gap the first 3"
    ):
        publish(limited, io.BytesIO(b"\n".join(lines)))
    assert len(arrived(settings)) == 3


def test_a_missing_topic_is_reported_at_once(kafka: str) -> None:
    with pytest.raises(TopicError, match="topics create"):
        replay(fresh_settings(kafka), [])


GOOD = b'{"patient_id": "p1", "event_time": "2026-01-01T00:00:00Z", "heart_rate": 80, "note": {"a": 1}}'


def test_publish_sends_lines_as_given_and_refuses_bad_ones(settings: Settings) -> None:
    lines = {
        1: GOOD,
        2: b"",
        3: b"not json",
        4: GOOD.replace(b"80", b'"80"'),
        5: GOOD.replace(b"Z", b""),
        6: b'{"event_time": "2026-01-01T00:00:00Z"}',
        7: b'{"x": "' + b"x" * MAX_MESSAGE_BYTES + b'"}',
        8: GOOD + b"\r",
        9: GOOD.replace(b"p1", b"p2"),
    }
    refused: list[Refusal] = []
    summary = publish(settings, io.BytesIO(b"\n".join(lines.values())), on_refused=refused.append)
    assert summary == PublishSummary(sent=3, refused=5)
    assert refused == [
        Refusal(3, Reason.NOT_JSON, ""),
        Refusal(4, Reason.WRONG_TYPE, "heart_rate"),
        Refusal(5, Reason.BAD_TIME, "event_time"),
        Refusal(6, Reason.MISSING_FIELD, "patient_id"),
        Refusal(7, Reason.TOO_LARGE, ""),
    ]
    assert by_patient(arrived(settings)) == {b"p1": [GOOD, GOOD], b"p2": [lines[9]]}


MAPPING = """
when = { "op" = ["c"] }
patient_id = { path = "pid", integer = true }
event_time = { path = "ts", as = "epoch_s" }
[features]
lactate = { path = "lab.lactate", unit_path = "lab.unit", model_unit = "mmol/L" }
"""


def test_publish_reads_lines_with_the_mapping(settings: Settings, tmp_path: Path) -> None:
    (file := tmp_path / "mapping.toml").write_text(MAPPING)
    good = b'{"op": "c",  "pid": 17, "ts": 1767601800, "lab": {"lactate": 1.5, "unit": "mmol/L"}}'
    lines = [
        good,
        good.replace(b'"c"', b'"x"'),
        good.replace(b'"mmol/L"', b'"mg"'),
        good.replace(b" 17,", b' "17",'),
        GOOD,
        good.replace(b" 17,", b" 18,"),
    ]
    refused: list[Refusal] = []
    given = settings.model_copy(update={"mapping": file})
    summary = publish(given, io.BytesIO(b"\n".join(lines)), on_refused=refused.append)
    assert summary == PublishSummary(sent=2, refused=4)
    assert refused == [
        Refusal(2, Reason.NOT_FOR_US, "op"),
        Refusal(3, Reason.UNKNOWN_UNIT, "lactate"),
        Refusal(4, Reason.WRONG_TYPE, "patient_id"),
        Refusal(5, Reason.NOT_FOR_US, "op"),
    ]
    assert by_patient(arrived(settings)) == {b"17": [lines[0]], b"18": [lines[5]]}


def test_lines_and_rows_are_encoded_in_avro_with_the_schema(settings: Settings, tmp_path: Path) -> None:
    schema = avro.record(("patient_id", "string"), ("event_time", "string"), ("heart_rate", "int"))
    (file := tmp_path / "ward.avsc").write_bytes(orjson.dumps(schema))
    given = settings.model_copy(update={"value_format": "avro", "schema_file": file})
    refused: list[Refusal] = []
    lines = [GOOD, GOOD.replace(b"80", b"80.5"), GOOD.replace(b"80", b'"80"')]
    summary = publish(given, io.BytesIO(b"\n".join(lines)), on_refused=refused.append)
    assert summary == PublishSummary(sent=1, refused=2)
    assert refused == [Refusal(2, Reason.WRONG_TYPE, ""), Refusal(3, Reason.WRONG_TYPE, "heart_rate")]
    rows = [orjson.loads(line) for line in lines]
    with pytest.raises(SourceError, match=r"a row does not match the schema.* continue with --skip 1"):
        replay(given, rows)
    value = avro.written(schema, rows[0])
    assert by_patient(arrived(settings)) == {b"p1": [value, value]}


ONE_METRIC = """
patient_id = { path = "patient" }
event_time = { path = "time" }
readings = { code = "type", value = "value" }

[features]
heart_rate = { codes = ["HR"] }
spo2 = { codes = ["SPO2"] }
"""


def test_rows_are_sent_as_messages_of_one_feature_which_skip_and_limit_count(
    settings: Settings, tmp_path: Path
) -> None:
    (file := tmp_path / "one.toml").write_text(ONE_METRIC)
    given = settings.model_copy(update={"mapping": file})
    times = ["2026-01-05T08:30:00Z", "2026-01-05T08:31:00Z"]
    rows = [{"patient_id": "p1", "event_time": time, "heart_rate": 80, "spo2": 97} for time in times]
    assert replay(given, rows, repeat=2, limit=3).sent == 3
    rest = replay(given, rows, repeat=2, skip=3)
    assert (rest.sent, rest.acknowledged, rest.complete) == (5, 5, True)
    every = [("HR", 80), ("SPO2", 97)] * 4
    messages = [*map(orjson.loads, by_patient(arrived(settings))[b"p1"])]
    assert [(one["type"], one["value"]) for one in messages] == every
    assert [one["time"] for one in messages] == [times[0], times[0], times[1], times[1]] * 2


def test_lines_are_encoded_as_messages_of_one_feature_or_not_at_all(
    settings: Settings, tmp_path: Path
) -> None:
    schema = avro.record(("patient", "string"), ("time", "string"), ("type", "string"), ("value", "int"))
    (file := tmp_path / "one.avsc").write_bytes(orjson.dumps(schema))
    (mapping := tmp_path / "one.toml").write_text(ONE_METRIC)
    given = settings.model_copy(update={"value_format": "avro", "schema_file": file, "mapping": mapping})
    refused: list[Refusal] = []
    lines = [good(), good(heart_rate=80, spo2=97), good(heart_rate=70, spo2=...)]
    summary = publish(given, io.BytesIO(b"\n".join(lines)), on_refused=refused.append)
    assert summary == PublishSummary(sent=3, refused=1)
    assert refused == [Refusal(1, Reason.WRONG_TYPE, "")]  # a spo2 of 97.5 is no int
    sent = [("HR", 80), ("SPO2", 97), ("HR", 70)]
    values = [
        avro.written(schema, {"patient": "p1", "time": TIME, "type": code, "value": n}) for code, n in sent
    ]
    assert by_patient(arrived(settings)) == {b"p1": values}


def test_publish_refuses_a_mapping_that_reads_headers(kafka: str) -> None:
    given = fresh_settings(kafka, mapping=Path("cloudevents-binary"))
    with pytest.raises(
        SettingsError, match="--mapping cloudevents-binary reads headers, which lines on stdin"
    ):
        publish(given, io.BytesIO(GOOD))


def test_publish_drops_a_byte_order_mark(settings: Settings) -> None:
    for content in (GOOD, GOOD + b"\n" + GOOD):
        summary = publish(settings, io.BytesIO(BOM_UTF8 + content))
        assert summary == PublishSummary(sent=content.count(b"\n") + 1, refused=0)
    assert [message.value() for message in arrived(settings)] == [GOOD] * 3
    with_another = publish(settings, io.BytesIO(GOOD + b"\n" + BOM_UTF8 + GOOD))
    assert with_another == PublishSummary(sent=1, refused=1)


def test_publish_sends_a_line_before_the_next_one_arrives(settings: Settings) -> None:
    reading, writing = os.pipe()
    done: list[PublishSummary] = []
    with os.fdopen(reading, "rb") as stream:
        thread = threading.Thread(target=lambda: done.append(publish(settings, stream)))
        thread.start()
        try:
            os.write(writing, GOOD + b"\n" + GOOD[:20])
            wait_until(lambda: arrived(settings), what="the first line")
            os.write(writing, GOOD[20:] + b"\n")
        finally:
            os.close(writing)
            thread.join(60)
    assert done == [PublishSummary(sent=2, refused=0)]
    assert [message.value() for message in arrived(settings)] == [GOOD, GOOD]


def test_publish_keeps_no_endless_line_in_memory(settings: Settings) -> None:
    class Endless(io.RawIOBase):
        left = 32 << 20

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if not tracemalloc.is_tracing():
                tracemalloc.start()  # from here, so that the client's topic metadata does not count
            size = min(len(buffer), self.left)
            buffer[:size] = b"x" * size
            self.left -= size
            return size

    refused: list[Refusal] = []
    try:
        publish(settings, io.BufferedReader(Endless()), on_refused=refused.append)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert refused == [Refusal(1, Reason.TOO_LARGE, "")]
