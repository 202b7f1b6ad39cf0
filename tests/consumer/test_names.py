"""A model whose features are named differently from the messages' fields: noticed before anything is scored."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumer.names import FIRST_MESSAGES, NameCheck, NoFeatureError
from consumer.observer import Observer
from consumer.scoring import ChunkScorer
from schemas.messages import plain
from schemas.names import names_for
from tests.conftest import MakeSettings
from tests.consumer.accounts import read_accounts, require_exactly_once
from tests.consumer.conftest import save
from tests.consumer.fakes import FakeMessage
from tests.consumer.models import Fragile, Imputing
from tests.consumer.stage import Stage
from tests.consumer.test_operations import Endpoints, served
from tests.consumer.test_scoring import run, scorer, without_input
from tests.kafka import Row, wait_until
from tests.schemas.avro import record, written
from tests.schemas.messages import TIME, good

FEATURES = ("heart_rate", "spo2")
NAMES = names_for(FEATURES, None)


def foreign(count: int, **fields: Any) -> list[bytes]:
    return [good(heart_rate=..., spo2=..., HR=80 + number, O2Sat=97, **fields) for number in range(count)]


def look(check: NameCheck, values: list[bytes]) -> None:
    check.look(plain(values), accepted=len(values))
    check.require()


def test_a_hundred_messages_without_any_feature_stop_it_and_list_both_sides_names() -> None:
    check = NameCheck(NAMES)
    look(check, foreign(FIRST_MESSAGES - 1))
    assert check.doubts
    with pytest.raises(NoFeatureError) as stopped:
        look(check, foreign(1))
    assert stopped.value.exit_code == 2
    assert str(stopped.value).startswith(
        "--model: none of the first 100 messages has any of the model's features, so nobody would be scored: the "
        "messages have HR, O2Sat, the model wants heart_rate, spo2; rename the fields "
    )
    assert "80" not in str(stopped.value)


def test_a_field_that_looks_like_a_missing_feature_is_reported_once() -> None:
    check = NameCheck(NAMES)
    cyrillic = "h\u0435art_rate"
    look(check, foreign(10, **{cyrillic: 80}))
    assert check.look_alikes() == [(cyrillic, "heart_rate")]
    look(check, foreign(10, **{cyrillic: 80, "SpO2": 97}))
    assert check.look_alikes() == [("SpO2", "spo2")]
    look(check, [good(heart_rate=80, spo2=..., **{"Heart-Rate": 80})])
    assert check.look_alikes() == []


@pytest.mark.parametrize("fields", [{"spo2": 97}, {"spo2": None}, {"spo2": 9700}], ids=str)
def test_one_message_with_a_feature_is_enough_even_if_null_or_implausible(fields: dict[str, Any]) -> None:
    check = NameCheck(NAMES)
    look(check, foreign(FIRST_MESSAGES - 1))
    look(check, [*foreign(200), good(heart_rate=..., **fields)])
    assert check.found
    assert not check.doubts


def test_rejected_messages_do_not_count_but_their_names_do() -> None:
    check = NameCheck(NAMES)
    check.look(plain([b"{", None, b"[]", *foreign(300)]), accepted=0)
    assert not check.doubts
    check.look(plain([*foreign(FIRST_MESSAGES - 1), b"{"]), accepted=FIRST_MESSAGES - 1)
    assert check.doubts
    check.look(plain([good(spo2="97")]), accepted=0)
    assert check.found


def test_messages_read_again_are_counted_once() -> None:
    check = NameCheck(NAMES)
    look(check, foreign(60))
    check.restart()
    look(check, foreign(60, RR=17))
    with pytest.raises(NoFeatureError, match="have HR, O2Sat, RR, the model"):
        look(check, foreign(60, RR=17))


def test_names_fit_on_one_line_however_many_and_strange_they_are() -> None:
    check = NameCheck(NAMES)
    fields = {f"lab_{number:02}": 1 for number in range(40)} | {"\x1b[2J\n" + "x" * 500: 1}
    with pytest.raises(NoFeatureError) as stopped:
        look(check, [good(heart_rate=..., spo2=..., **fields)] * 100)
    assert "lab_29 and 11 more, the model wants" in str(stopped.value)
    with pytest.raises(NoFeatureError) as stopped:
        look(NameCheck(NAMES), [good(heart_rate=..., spo2=..., **{"\x1b[2J\n" + "x" * 500: 1})] * 100)
    assert f"have ?[2J?{'x' * 54}…, the model" in str(stopped.value)
    with pytest.raises(NoFeatureError, match="have nothing but patient_id and event_time, the model"):
        look(NameCheck(NAMES), [good(heart_rate=..., spo2=...)] * 100)


def test_the_check_spans_chunks_and_forgets_what_is_read_again() -> None:
    score = scorer()
    chunk = [without_input(number) for number in range(40)]
    for _ in range(2):
        run(chunk, score)
    assert score.doubts_names
    score.restart()
    for _ in range(2):
        run(chunk, score)
    with pytest.raises(
        NoFeatureError, match=r"first 120 messages .* have heart_rate, the model wants signal, spo2"
    ):
        run(chunk, score)


# --- with a mapping

BY_PATH = """
root = "data"
patient_id = { path = "patient_id" }
event_time = { path = "event_time" }
[features]
signal = { path = "vitals.Signal.value" }
spo2 = { path = "channels.1" }
"""
BY_CODE = """
patient_id = { path = "patient_id" }
event_time = { path = "event_time" }
readings = { path = "all", code = "type", value = "value" }
[features]
signal = { codes = ["SIG", "SIGNAL"] }
spo2 = { codes = ["SpO2"] }
"""


class Alike(Observer):
    def __init__(self) -> None:
        self.found: list[tuple[str, str, bool]] = []

    def looks_alike(self, name: str, wanted: str, *, mapped: bool) -> None:
        self.found.append((name, wanted, mapped))


def sent(**fields: Any) -> list[FakeMessage]:
    document = {"patient_id": "p", "event_time": TIME, **fields}
    return [
        FakeMessage(orjson.dumps({**document, "data": document}), partition=0, offset=n) for n in range(50)
    ]


def mapped(tmp_path: Path, text: str, observer: Observer) -> ChunkScorer:
    (file := tmp_path / "mapping.toml").write_text(text)
    return scorer(mapping=file, observer=observer)


def test_a_mapping_whose_paths_no_message_has_stops_it_and_lists_both_sides_names(tmp_path: Path) -> None:
    score = mapped(tmp_path, BY_PATH, Observer())
    run(sent(v={"hr": 80}), score)
    assert score.doubts_names
    with pytest.raises(NoFeatureError) as stopped:
        run(sent(v={"hr": 80}), score)
    said = str(stopped.value)
    assert said.startswith(
        "--mapping: none of the first 100 messages has anything at the paths of the model's features"
    )
    assert "data.v.hr" in said
    assert "the mapping says data.vitals.Signal.value, data.channels.1; correct its paths" in said
    assert "80" not in said


@pytest.mark.parametrize(
    "fields", [{"vitals": {"Signal": {"value": None}}}, {"channels": [0, "97"]}], ids=str
)
def test_one_message_with_one_of_the_paths_is_enough(tmp_path: Path, fields: dict[str, Any]) -> None:
    score = mapped(tmp_path, BY_PATH, Observer())
    for _ in range(3):
        run(sent(**fields), score)
    assert not score.doubts_names


@pytest.mark.parametrize(
    ("text", "fields", "told"),
    [
        (
            BY_PATH,
            {"vitals": {"signal": {"value": 1}}},
            ("data.vitals.signal.value", "data.vitals.Signal.value"),
        ),
        (BY_CODE, {"all": [{"type": "SIG", "value": 1}, {"type": "SPO2", "value": 97}]}, ("SPO2", "SpO2")),
        (BY_CODE, {"all": {"type": "Sig", "value": 1}}, ("Sig", "SIG")),
    ],
)
def test_a_path_or_code_that_only_looks_like_the_mappings_is_reported(
    tmp_path: Path, text: str, fields: dict[str, Any], told: tuple[str, str]
) -> None:
    run(sent(**fields), mapped(tmp_path, text, alike := Alike()))
    assert alike.found == [(*told, True)]


def test_messages_with_only_other_codes_do_not_stop_it(tmp_path: Path) -> None:
    score = mapped(tmp_path, BY_CODE, alike := Alike())
    for _ in range(3):
        run(sent(all=[{"type": "ETCO2", "value": 35}, {"type": None}, 7]), score)
    assert not score.doubts_names
    assert not alike.found


# --- on a real Kafka


def misnamed(count: int) -> Iterator[Row]:
    """Messages that use another name for the signal."""
    for number in range(count):
        row = {"patient_id": f"p{number % 7}", "event_time": TIME, "HR": number % 256, "O2Sat": 97}
        yield f"p{number % 7}", orjson.dumps(row)


def mixed(count: int) -> Iterator[Row]:
    """Every third message has no feature at all; every fourth has only an impossible spo2."""
    for number in range(count):
        row: dict[str, Any] = {"patient_id": f"p{number % 7}", "event_time": TIME}
        if number % 4 == 3:
            row["spo2"] = 0.97
        elif number % 3:
            row["signal"] = number % 256
        yield f"p{number % 7}", orjson.dumps(row)


@pytest.fixture
def imputing(tmp_path: Path) -> Path:
    """A model that reports a low risk when it knows nothing."""
    return save(Imputing(), tmp_path / "imputing.joblib")


@pytest.mark.kafka
@pytest.mark.parametrize("chunk_size", [100, 16])
def test_a_worker_whose_model_matches_no_field_stops_before_it_commits_anything(
    stage: Stage, make_settings: MakeSettings, tmp_path: Path, chunk_size: int
) -> None:
    wrong = save(Imputing(), tmp_path / "wrong.joblib")
    settings = make_settings(model=wrong, chunk_size=chunk_size)
    stage.send(settings, misnamed(150))
    worker = stage.worker(settings)

    assert worker.wait(timeout=60) == 2, worker.log
    *_, last = worker.log.splitlines()
    assert "messages has any of the model's features" in last
    assert "the messages have HR, O2Sat, the model wants signal, spo2;" in last
    assert "Traceback" not in worker.log
    found = read_accounts(settings)
    assert (found.results, found.dead_letters, found.metrics, found.committed) == ([], [], [], {})

    right = save(Fragile(("HR", "O2Sat")), tmp_path / "right.joblib")
    settings = settings.model_copy(update={"model": right, "until_idle": 1.5})
    worker = stage.worker(settings)
    assert worker.wait(timeout=60) == 0, worker.log
    results = [result for _, result in require_exactly_once(settings, rows=150).results]
    assert len(results) == 150
    assert not any(result.no_input for result in results)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("field", "feature", "told"),
    [
        ("s\u0440o2", "spo2", "U+0440 CYRILLIC SMALL LETTER ER in place of p"),
        ("sp\u03bf2", "spo2", "U+03BF GREEK SMALL LETTER OMICRON in place of o"),
        ("SpO2", "spo2", "S in place of s"),
        ("spo2\u00a0", "spo2", "U+00A0 NO-BREAK SPACE in place of nothing"),
        ("spo\u2082", "spo2", "U+2082 SUBSCRIPT TWO in place of 2"),
        ("heartRate", "heart_rate", "R in place of _ and r"),
        (
            "temp\u00e9rature",
            "tempe\u0301rature",
            "U+00E9 LATIN SMALL LETTER E WITH ACUTE in place of e and U+0301 COMBINING ACUTE ACCENT",
        ),
    ],
)
def test_a_field_that_only_looks_like_a_feature_is_reported_at_the_first_chunk(
    stage: Stage, tmp_path: Path, field: str, feature: str, told: str
) -> None:
    model = save(Fragile(("signal", feature)), tmp_path / "fragile.joblib")
    settings = stage.settings().model_copy(update={"model": model})
    row = {"patient_id": "p", "event_time": TIME, "signal": 1.0, field: 97}
    stage.send(settings, [("p", orjson.dumps(row))] * 5)
    worker = stage.worker(settings)
    stage.wait_committed(settings, 5)
    worker.stop()
    assert f"only looks like the model's feature {feature} ({told})" in worker.log
    assert worker.log.count("only looks like") == 1


@pytest.mark.kafka
def test_messages_without_input_get_no_score_and_are_counted(
    stage: Stage, make_settings: MakeSettings, imputing: Path
) -> None:
    settings = served(make_settings(model=imputing, partitions=1))
    stage.send(settings, mixed(600))
    worker, http = stage.worker(settings), Endpoints(settings)
    stage.wait_committed(settings, 600)
    empty = sum(number % 4 == 3 or number % 3 == 0 for number in range(600))
    wait_until(
        lambda: http.metrics()["vitalstream_no_input_results_total",] == empty,
        what="those without input counted",
    )
    worker.stop()

    found = require_exactly_once(settings, rows=600)
    assert not found.dead_letters
    for _, result in found.results:
        number = result.source_offset
        if number % 4 == 3 or number % 3 == 0:
            assert (result.risk_probability, result.risk_label) == (None, None)
            assert (result.features_present, result.no_input) == (0, True)
        else:
            assert result.risk_probability == (number % 256) / 256
            assert (result.features_present, result.no_input) == (1, False)
    assert sum(chunk.no_input for chunk in found.metrics) == empty
    assert f"600 rows committed, {empty} of them without input, lag 0" in worker.log


@pytest.mark.kafka
def test_a_topic_with_null_features_for_a_long_time_does_not_stop_the_worker(
    stage: Stage, make_settings: MakeSettings, imputing: Path
) -> None:
    settings = make_settings(model=imputing, partitions=1, until_idle=1.5)
    null = orjson.dumps({"patient_id": "p", "event_time": TIME, "signal": None})
    stage.send(settings, [("p", null)] * 300)
    worker = stage.worker(settings)
    assert worker.wait(timeout=60) == 0, worker.log
    found = require_exactly_once(settings, rows=300)
    assert all(result.no_input for _, result in found.results)


@pytest.mark.kafka
def test_fewer_misnamed_messages_are_committed_without_a_score_at_once(
    stage: Stage, make_settings: MakeSettings, imputing: Path
) -> None:
    settings = make_settings(model=imputing, partitions=1)
    stage.send(settings, misnamed(20))
    worker = stage.worker(settings)
    stage.wait_committed(settings, 20)
    worker.stop()
    found = require_exactly_once(settings, rows=20)
    assert all(result.no_input for _, result in found.results)


class Told(Observer):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def foreign_codes(self, sentence: str) -> None:
        self.sentences.append(sentence)


LAB = {
    "resourceType": "Observation",
    "status": "final",
    "subject": {"reference": "Patient/p1"},
    "effectiveDateTime": TIME,
    "code": {
        "coding": [{"system": "http://loinc.org", "code": "2345-7"}, {"system": "urn:lab", "code": "GLU"}]
    },
    "valueQuantity": {"value": 5.4, "code": "mmol/L", "system": "http://unitsofmeasure.org"},
}
ORU = b"\r".join(
    [
        b"MSH|^~\\&|a|b|c|d|20260105083000+0000||ORU^R01|1|P|2.6",
        b"PID|1||p1",
        b"OBX|1|NM|2345-7^glucose^LN^GLU^glucose^L||5.4|mmol/L|||||F",
    ]
)
CODED = """
[features]
signal = { codes = ["LOINC 8867-4"], model_unit = "/min" }
spo2 = { codes = ["LOINC 2708-6", "MDC 150456"] }
"""
FOREIGN: dict[str, tuple[bytes, str]] = {
    "fhir": (orjson.dumps(LAB), "LOINC 2345-7, urn:lab GLU"),
    "hl7v2": (ORU, "LOINC 2345-7, L GLU"),
    "json": (
        orjson.dumps({"patient_id": "p", "event_time": TIME, "all": [{"type": "GLU", "value": 5}]}),
        "GLU",
    ),
}


@pytest.mark.parametrize("value_format", FOREIGN)
def test_messages_with_only_other_codes_are_reported_once_and_do_not_stop_it(
    tmp_path: Path, value_format: str
) -> None:
    """Lab results may come first, so the worker carries on; but whoever chose the wrong codes must learn of it."""
    value, codes = FOREIGN[value_format]
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(BY_CODE if value_format == "json" else CODED)
    observer = Told()
    score = scorer(mapping=mapping, value_format=value_format, observer=observer, max_dead_letter_ratio=1)
    for _ in range(4):
        run([FakeMessage(value, partition=0, offset=number) for number in range(60)], score)
    (told,) = observer.sentences
    assert told.startswith("none of the first 120 messages has a code of the mapping, so none was scored: ")
    wanted = "SIG, SIGNAL, SpO2" if value_format == "json" else "LOINC 8867-4, LOINC 2708-6, MDC 150456"
    assert f"the messages have {codes}, the mapping says {wanted};" in told
    assert not score.doubts_names


AVRO = record(
    ("patient_id", "string"), ("event_time", "string"), ("HR", "double"), ("Signal", ["null", "long"])
)


def test_avro_without_any_of_the_models_features_stops_it_and_lists_both_sides_names(tmp_path: Path) -> None:
    (file := tmp_path / "ward.avsc").write_bytes(orjson.dumps(AVRO))
    observer = Alike()
    score = scorer(value_format="avro", schema_file=file, observer=observer)
    value = written(AVRO, {"patient_id": "p", "event_time": TIME, "HR": 84.0, "Signal": None})
    with pytest.raises(NoFeatureError, match="have HR, Signal, the model wants signal, spo2"):
        run([FakeMessage(value, partition=0, offset=number) for number in range(100)], score)
    assert observer.found == [("Signal", "signal", False)]


def test_messages_nested_deeper_than_the_stack_are_checked_too(tmp_path: Path) -> None:
    deep = b'{"patient_id":"p","event_time":"%s","a":%s}' % (
        TIME.encode(),
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
    )
    score = mapped(tmp_path, BY_PATH.replace('root = "data"', ""), Observer())
    run([FakeMessage(deep, partition=0, offset=number) for number in range(50)], score)
    assert score.doubts_names
