"""Scoring: a chunk becomes results, dead letters and metrics. Bad rows affect no other row."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from broker.roles import Role
from broker.settings import Settings
from consumer.errors import ModelFailedError
from consumer.observer import LogObserver, Observer
from consumer.scoring import RECORD_OVERHEAD, ChunkScorer, Limits
from consumer.sending import Output
from real_time.inference import RiskScorer
from real_time.usable import Model
from schemas.contract import MAX_MESSAGE_BYTES, Reason
from schemas.dead_letters import Origin, read_dead_letter_headers
from schemas.metrics import ChunkMetrics, decode_metrics
from schemas.results import RiskResult, decode_result
from tests.consumer.fakes import FakeMessage, chunk_of, letters_of, metrics_of, records_of, results_of
from tests.consumer.models import (
    ABOVE_ONE,
    CANARY,
    FEATURES,
    INFINITE,
    NOT_A_NUMBER,
    ONE_ROW_LESS,
    RAISES,
    Fragile,
    Imputing,
)
from tests.schemas.messages import TIME, good

SHA256 = "ab" * 32
NOW = 1_767_601_800.5


class Recorder(Observer):
    def __init__(self) -> None:
        self.metrics: list[ChunkMetrics] = []
        self.rejects: list[tuple[int, int, Reason, str]] = []
        self.never_seen: list[tuple[str, ...]] = []
        self.keys_doubted = 0

    def scored(self, chunks: Sequence[ChunkMetrics]) -> None:
        self.metrics += chunks

    def unseen(self, features: Sequence[str]) -> None:
        self.never_seen.append(tuple(features))

    def keyed_otherwise(self) -> None:
        self.keys_doubted += 1

    def rejected(self, partition: int, offset: int, reason: Reason, field: str) -> None:
        self.rejects.append((partition, offset, reason, field))


def scorer(
    *,
    model: Any = None,
    observer: Observer | None = None,
    result_bytes: int = 1_000_000,
    dead_letter_bytes: int = 1_000_000,
    **settings: Any,
) -> ChunkScorer:
    given = Settings(input_topic="vitals", **settings)
    return ChunkScorer(
        Model(RiskScorer(model or Fragile(), threshold=given.threshold), FEATURES, SHA256),
        settings=given,
        worker="w-0",
        limits=Limits(result=result_bytes, dead_letter=dead_letter_bytes),
        observer=observer or Observer(),
        clock=lambda: NOW,
    )


def chunk(*signals: float) -> list[FakeMessage]:
    """One message per signal, at offsets 100, 101... of partition 2."""
    return [
        FakeMessage(
            good(patient_id=f"p{number}", signal=signal),
            key=f"p{number}".encode(),
            partition=2,
            offset=100 + number,
        )
        for number, signal in enumerate(signals)
    ]


def run(given: list[FakeMessage], score: ChunkScorer | None = None, *, lag: int = 0) -> Output:
    return (score or scorer())(chunk_of(given), lag=lag)


def results(output: Output) -> list[RiskResult]:
    return [decode_result(value) for value in results_of(output)]


def probabilities(output: Output) -> dict[int, float | None]:
    return {result.source_offset: result.risk_probability for result in results(output)}


def origins(output: Output) -> list[Origin]:
    return [read_dead_letter_headers(letter.headers) for letter in letters_of(output)]


def test_a_result_has_every_documented_field() -> None:
    output = run(chunk(128, 64))
    assert orjson.loads(results_of(output)[0]) == {
        "patient_id": "p0",
        "event_time": TIME,
        "risk_probability": 0.5,
        "risk_label": 1,
        "implausible": [],
        "threshold": 0.5,
        "model": SHA256,
        "scored_at": "2026-01-05T08:30:00.500Z",
        "source_topic": "vitals",
        "source_partition": 2,
        "source_offset": 100,
        "features_present": 2,
        "no_input": False,
        "mapping": None,
    }
    assert results(output)[1].risk_label == 0
    assert output.rows == 2
    assert not letters_of(output)


def test_text_behind_an_encoder_is_scored_and_counts_as_present() -> None:
    rows = pd.DataFrame({"unit": ["ICU", "ward"] * 10, "spo2": [88.0, 97.0] * 10})
    columns = ColumnTransformer([("unit", OneHotEncoder(), ["unit"])], remainder=SimpleImputer())
    fitted = make_pipeline(columns, LogisticRegression()).fit(rows, [1, 0] * 10)
    model = Model(RiskScorer(fitted), ("unit", "spo2"), SHA256)
    score = ChunkScorer(
        model,
        settings=Settings(input_topic="vitals"),
        worker="w-0",
        limits=Limits(result=1_000_000, dead_letter=1_000_000),
        observer=Observer(),
        clock=lambda: NOW,
    )
    sent = [("ICU", 88), ("ward", None), (None, None), (3, 97), ("morgue", 97)]
    messages = [
        FakeMessage(good(heart_rate=..., unit=unit, spo2=spo2), offset=number)
        for number, (unit, spo2) in enumerate(sent)
    ]
    output = run(messages, score)
    given = pd.DataFrame({"unit": ["ICU", "ward"], "spo2": [88, np.nan]})
    *scores, none = probabilities(output).values()
    assert scores == pytest.approx(fitted.predict_proba(given)[:, 1], rel=1e-12)
    assert none is None
    assert [one.features_present for one in results(output)] == [2, 1, 0]
    assert [(one.offset, one.reason, one.field) for one in origins(output)] == [
        (3, Reason.WRONG_TYPE, "unit"),
        (4, Reason.MODEL_REJECTED, "risk_probability"),
    ]


def with_spo2(*values: float | None) -> list[FakeMessage]:
    return [FakeMessage(good(signal=1, spo2=value), offset=number) for number, value in enumerate(values)]


def test_features_missing_from_all_the_first_rows_are_reported_once() -> None:
    recorder = Recorder()
    score = scorer(observer=recorder)
    for _ in range(3):
        run(with_spo2(*[None] * 333), score)
    assert recorder.never_seen == []
    run(with_spo2(None), score)
    assert recorder.never_seen == [("spo2",)]
    for _ in range(4):
        run(with_spo2(*[None] * 333), score)
    assert len(recorder.never_seen) == 1


def test_a_feature_seen_once_is_never_reported_and_impossible_values_do_not_count() -> None:
    recorder = Recorder()
    score = scorer(observer=recorder)
    run(with_spo2(*[None] * 998, 97), score)
    run(with_spo2(*[None] * 1000), score)
    assert recorder.never_seen == []
    run(with_spo2(*[0.97] * 1000), scorer(observer=recorder))
    assert recorder.never_seen == [("spo2",)]


def without_input(offset: int = 0, **fields: Any) -> FakeMessage:
    """A message with neither the signal nor spo2, unless `fields` adds them."""
    return FakeMessage(good(spo2=..., **fields), offset=offset)


def test_messages_without_any_feature_are_not_given_to_the_model() -> None:
    given = [
        FakeMessage(good(signal=128), offset=0),
        without_input(1),
        without_input(2, signal=None),
        FakeMessage(good(signal=None, spo2=97), offset=3),
        FakeMessage(good(spo2=0.97), offset=4),  # implausible, so the model would see it as missing
        FakeMessage(good(signal=64, spo2=None), offset=5),
    ]
    output = run(given, scorer(model=Imputing()))
    found = [
        (one.risk_probability, one.risk_label, one.features_present, one.no_input) for one in results(output)
    ]
    assert found == [
        (0.5, 1, 2, False),
        (None, None, 0, True),
        (None, None, 0, True),
        (0.0, 0, 1, False),
        (None, None, 0, True),
        (0.25, 0, 1, False),
    ]
    assert [one.implausible for one in results(output)][4] == ["spo2"]
    assert not letters_of(output)


def test_with_min_features_only_fuller_messages_are_given_to_the_model() -> None:
    given = [FakeMessage(good(signal=128)), FakeMessage(good(signal=64, spo2=None)), without_input()]
    output = run(given, scorer(model=Imputing(), min_features=2))
    assert [(one.risk_probability, one.features_present, one.no_input) for one in results(output)] == [
        (0.5, 2, False),
        (None, 1, True),
        (None, 0, True),
    ]


def test_a_chunk_without_any_input_never_calls_the_model() -> None:
    output = run([without_input(0), without_input(1)], scorer(model=Imputing()))
    assert [one.no_input for one in results(output)] == [True, True]
    metrics = decode_metrics(*metrics_of(output))
    assert (metrics.rows, metrics.scored, metrics.no_input) == (2, 2, 2)
    assert (metrics.latency_ms, metrics.throughput_rows_per_s) == (0, 0)


def test_metrics_count_the_results_without_input_and_no_dead_letter() -> None:
    given = [without_input(0), without_input(1), *chunk(1, RAISES), FakeMessage(b"?", offset=7)]
    given[1] = FakeMessage(good(spo2=...), key=b"k" * 5000, offset=1)  # its result will be too large
    metrics = decode_metrics(*metrics_of(run(given, scorer(result_bytes=2000))))
    assert (metrics.rows, metrics.scored, metrics.dead_lettered, metrics.no_input) == (5, 2, 3, 1)


def test_messages_without_input_do_not_count_when_judging_the_model() -> None:
    empty = [without_input(number) for number in range(20)]
    output = run(empty + chunk(*[RAISES] * 9))
    assert len(results_of(output)) == 20
    assert [origin.reason for origin in origins(output)] == [Reason.MODEL_REJECTED] * 9
    with pytest.raises(ModelFailedError, match="all 10 rows of a chunk"):
        run(empty + chunk(*[RAISES] * 10))


def test_the_threshold_comes_from_the_settings() -> None:
    (result,) = results(run(chunk(64), scorer(threshold=0.25)))
    assert (result.risk_label, result.threshold) == (1, 0.25)


@pytest.mark.parametrize("bad", [{3}, {0}, {12}, {0, 1, 7, 12}, set(range(12))], ids=str)
def test_only_the_rows_on_which_the_model_raises_are_rejected(bad: set[int]) -> None:
    output = run(chunk(*(RAISES if number in bad else number for number in range(13))))

    assert probabilities(output) == {100 + number: number / 256 for number in range(13) if number not in bad}
    assert origins(output) == [
        Origin(Reason.MODEL_REJECTED, "risk_probability", "vitals", 2, 100 + number, -1)
        for number in sorted(bad)
    ]


@pytest.mark.parametrize("value", [RAISES, ABOVE_ONE, INFINITE])
def test_all_rows_of_a_small_chunk_may_be_bad_but_not_of_a_larger_one(value: float) -> None:
    output = run(chunk(*[value] * 9))
    assert not results_of(output)
    assert [origin.reason for origin in origins(output)] == [Reason.MODEL_REJECTED] * 9

    with pytest.raises(ModelFailedError, match="all 10 rows of a chunk") as error:
        run(chunk(*[value] * 10))
    assert CANARY not in str(error.value)


def test_rows_failing_for_different_causes_count_together_against_the_model() -> None:
    with pytest.raises(ModelFailedError):
        run(chunk(*[RAISES] * 5, *[ABOVE_ONE] * 5))


def test_undecodable_rows_do_not_count_against_the_model() -> None:
    undecodable = [FakeMessage(b"?", partition=2, offset=number) for number in range(20)]
    output = run(undecodable + chunk(*[RAISES] * 9))
    assert len(letters_of(output)) == 29


def test_a_model_returning_the_wrong_number_of_rows_stops_the_worker() -> None:
    with pytest.raises(ModelFailedError, match=r"predict_proba must return shape \(3, 2\), not \(2, 2\)"):
        run(chunk(1, ONE_ROW_LESS, 3))


@pytest.mark.parametrize("value", [ABOVE_ONE, INFINITE])
def test_an_impossible_probability_is_rejected(value: float) -> None:
    output = run(chunk(1, value, 3))
    assert probabilities(output) == {100: 1 / 256, 102: 3 / 256}
    assert [(origin.reason, origin.offset) for origin in origins(output)] == [(Reason.MODEL_REJECTED, 101)]


def test_nan_becomes_a_result_without_probability_and_label() -> None:
    output = run(chunk(NOT_A_NUMBER, 3))
    assert b'"risk_probability":null,"risk_label":null' in results_of(output)[0]
    assert probabilities(output) == {100: None, 101: 3 / 256}
    assert not letters_of(output)


def test_a_result_too_large_for_its_topic_becomes_a_dead_letter() -> None:
    key = b"k" * 600
    given = chunk(1, 2, 3)
    given[1] = FakeMessage(good(signal=2), key=key, partition=2, offset=101)
    least = len(key) + len(results_of(run([given[1]]))[0])

    output = run(given, scorer(result_bytes=least + RECORD_OVERHEAD))
    assert len(results_of(output)) == 3
    output = run(given, scorer(result_bytes=least + RECORD_OVERHEAD - 1))
    assert probabilities(output) == {100: 1 / 256, 102: 3 / 256}
    assert origins(output) == [Origin(Reason.TOO_LARGE, "", "vitals", 2, 101, -1)]
    assert letters_of(output)[0].key == key


def test_a_rejected_row_with_an_oversized_key_becomes_one_dead_letter() -> None:
    message = FakeMessage(good(signal=RAISES), key=b"k" * 5000)
    (origin,) = origins(run([message, *chunk(1)], scorer(result_bytes=2000)))
    assert origin.reason is Reason.MODEL_REJECTED


def test_a_dead_letter_too_large_for_its_topic_becomes_a_pointer() -> None:
    value = b"x" * (MAX_MESSAGE_BYTES + 1)
    (letter,) = letters_of(run([FakeMessage(value)], scorer(dead_letter_bytes=10_000)))
    assert letter.value == b""
    assert read_dead_letter_headers(letter.headers).pointer


def test_results_keep_the_order_and_keys_of_their_sources() -> None:
    given = [
        FakeMessage(good(patient_id="a", signal=1), key=b"\xff\x00", partition=1, offset=5),
        FakeMessage(good(patient_id="ü", signal=2), key=None, partition=0, offset=9),
        FakeMessage(b"?", key=b"bad", partition=1, offset=6),
        FakeMessage(good(patient_id="c", signal=3), key=b"", partition=1, offset=7),
        FakeMessage(good(patient_id="d", signal=RAISES), key=None, partition=1, offset=8),
        FakeMessage(None, key=None, partition=0, offset=10),
    ]
    output = run(given)

    assert records_of(output, Role.RESULTS).keys == [b"\xff\x00", "ü".encode(), b""]
    assert [(one.source_partition, one.source_offset) for one in results(output)] == [(1, 5), (0, 9), (1, 7)]
    assert [(one.partition, one.offset) for one in origins(output)] == [(1, 6), (1, 8), (0, 10)]
    assert [(one.key, one.value) for one in letters_of(output)] == [
        (one.key(), one.value()) for one in (given[2], given[4], given[5])
    ]


def test_a_dead_letter_keeps_headers_and_timestamp() -> None:
    message = FakeMessage(b"?", headers=[("trace", b"\x00")], timestamp=1_767_598_200_412)
    (letter,) = letters_of(run([message]))
    assert letter.headers[0] == ("trace", b"\x00")
    assert read_dead_letter_headers(letter.headers).timestamp == 1_767_598_200_412


def test_metrics_add_up() -> None:
    recorder = Recorder()
    given = chunk(1, 2, RAISES, 4)
    given += [FakeMessage(b"?", partition=3, offset=7)]
    output = run(given, scorer(observer=recorder), lag=12)

    metrics = decode_metrics(*metrics_of(output))
    assert recorder.metrics == [metrics]
    assert (metrics.rows, metrics.scored, metrics.dead_lettered) == (5, 3, 2)
    assert len(results_of(output)) == metrics.scored
    assert len(letters_of(output)) == metrics.dead_lettered
    assert metrics.offsets == {"vitals-2": [100, 103], "vitals-3": [7, 7]}
    assert (metrics.worker, metrics.model, metrics.lag) == ("w-0", SHA256, 12)
    assert metrics.at == "2026-01-05T08:30:00.500Z"
    assert metrics.latency_ms > 0
    assert metrics.throughput_rows_per_s == pytest.approx(1000 / metrics.latency_ms)
    assert recorder.rejects == [
        (2, 102, Reason.MODEL_REJECTED, "risk_probability"),
        (3, 7, Reason.NOT_JSON, ""),
    ]


def test_end_to_end_times_are_nearest_ranks_over_the_scored_rows() -> None:
    given = [
        FakeMessage(good(signal=1), offset=age, timestamp=int(NOW * 1000) - age) for age in range(1, 201)
    ]
    given += [FakeMessage(good(), offset=500), FakeMessage(b"?", offset=501, timestamp=1)]
    metrics = decode_metrics(*metrics_of(run(given)))
    assert metrics.end_to_end_ms_p50 == 100
    assert metrics.end_to_end_ms_p99 == 198
    assert metrics.end_to_end_ms_max == 200


def test_without_timestamps_there_are_no_end_to_end_times() -> None:
    metrics = decode_metrics(*metrics_of(run(chunk(1))))
    assert metrics.end_to_end_ms_p50 is metrics.end_to_end_ms_p99 is metrics.end_to_end_ms_max is None


def test_a_chunk_of_only_rejects_still_has_metrics() -> None:
    output = run([FakeMessage(b"?", partition=1, offset=3)])
    metrics = decode_metrics(*metrics_of(output))
    assert (metrics.rows, metrics.scored, metrics.dead_lettered) == (1, 0, 1)
    assert metrics.latency_ms == metrics.throughput_rows_per_s == 0
    assert not results_of(output)


def test_running_out_of_memory_does_not_reject_messages() -> None:
    class Hungry(Fragile):
        def predict_proba(self, X: Any) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        run(chunk(1, 2), scorer(model=Hungry()))


def test_nothing_of_an_exception_reaches_an_output_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    given = chunk(1, RAISES, 3)
    given[2] = FakeMessage(CANARY.encode(), key=CANARY.encode(), partition=2, offset=102)
    observer = LogObserver(interval=0)
    output = run(given, scorer(observer=observer))
    observer.committed(chunks=1, rows=3, seconds=0.01)
    sent = [*metrics_of(output), *results_of(output)]
    for letter in letters_of(output):
        sent += [name.encode() + (value or b"") for name, value in letter.headers]
    assert "model_rejected" in caplog.text
    assert CANARY.encode() not in b"".join(sent)
    assert CANARY not in caplog.text


@pytest.mark.parametrize(("key", "told"), [(b"p1", 0), (b"M1", 1), (None, 1)])
def test_keys_that_are_not_patient_ids_are_reported_once(
    key: bytes | None, told: int, tmp_path: Path
) -> None:
    mapping = tmp_path / "ward.toml"
    mapping.write_text('[features]\nsignal = { codes = ["S"], model_unit = "1" }\nspo2 = { absent = true }\n')
    value = b"MSH|^~\\&|||||20260105083000Z||ORU^R01\rPID|||p1\rOBX||NM|S||8|1|||||F|||20260105083000+0000"
    recorder = Recorder()
    score = scorer(observer=recorder, value_format="hl7v2", mapping=mapping)
    good = FakeMessage(value, key=key, partition=0, offset=5)
    for messages in ([FakeMessage(b"?", key=b"x", partition=0, offset=4)], [good], [good, good]):
        run(messages, score)
    assert recorder.keys_doubted == told
