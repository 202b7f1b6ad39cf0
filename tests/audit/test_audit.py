"""The audit on a real broker: what a real worker writes is clean, and every way to spoil it is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from audit.errors import NotAuditableError
from audit.findings import Invariant, Offender
from audit.outcome import Audit, Waiting
from audit.reading import Progress
from audit.run import audit
from broker.errors import TopicError
from broker.settings import Settings
from real_time import pinned_sha256
from schemas.contract import RISK_PROBABILITY, Reason
from tests.audit.conftest import ROWS, save, work
from tests.audit.models import Placid, Strict
from tests.audit.topics import Headers, Record, Written, commit, publish, written
from tests.conftest import MakeSettings, fresh_settings
from tests.consumer.test_dead_letters import limit_topic

pytestmark = pytest.mark.kafka

I = Invariant  # noqa: E741

OTHER_CAUSE = "its dead letter gives a different reason or field from decoding it"
NOT_ITS_MESSAGE = "its dead letter's key, value, headers or timestamp are not its message's"


def judged(settings: Settings, **options: Any) -> Audit:
    return audit(settings, **({"patience": 5.0} | options))


def failed(found: Audit) -> set[Invariant]:
    return {verdict.invariant for verdict in found.verdicts if verdict.failed}


def offenders(found: Audit, invariant: Invariant) -> list[Offender]:
    return [one for one in found.offenders if one.invariant is invariant]


def places(found: Audit, invariant: Invariant) -> list[tuple[str, int, int]]:
    return [(one.topic, one.partition, one.offset) for one in offenders(found, invariant)]


def of_partition(written: Written, partition: int) -> list[int]:
    """The positions of the results of an input partition, in the order of its messages."""
    mine = [n for n, record in enumerate(written.results) if record.place[0] == partition]
    return sorted(mine, key=lambda n: written.results[n].place)


def busiest(written: Written) -> int:
    """The input partition with the most results."""
    sources = [record.place[0] for record in written.results]
    return max(sources, key=sources.count)


def add_letter(written: Written, place: tuple[int, int], reason: Reason) -> None:
    """Add a dead letter where it keeps them in order."""
    field = RISK_PROBABILITY if reason is Reason.MODEL_REJECTED else ""
    written.dead_letters.append(written.letter(place, reason, field))
    written.dead_letters.sort(key=lambda one: one.letter_place)


def some_chunk(written: Written) -> int:
    """The position of a chunk with a few rows."""
    return next(n for n, one in enumerate(written.metrics) if one.json["scored"] > 2)


def test_what_a_worker_writes_is_clean(
    clean: Written, moody: Path, worked: Callable[[Path], Written]
) -> None:
    for made in (clean, worked(moody)):
        found = judged(made.settings)
        assert found.clean, found.offenders
        assert found.messages == found.accounted == ROWS
        assert (found.offenders, found.notes, found.unjudged) == ([], [], [])
        assert found.waiting == Waiting(0, exact=True)
        assert found.records == {
            made.settings.output_topic: len(made.results),
            made.settings.dead_letter_topic: len(made.dead_letters),
            made.settings.metrics_topic: len(made.metrics),
        }
        assert len(made.dead_letters) > 10
    reasons = {dict(one.headers)["dlq.reason"] for one in worked(moody).dead_letters}
    assert reasons == {b"not_json", b"missing_field", b"wrong_type", b"model_rejected"}
    assert any(one.json["implausible"] for one in worked(moody).results)
    assert any(one.json["risk_probability"] is None for one in worked(moody).results)


def test_a_copy_is_clean_even_without_the_model(clean: Written) -> None:
    found = judged(clean.copied().model_copy(update={"model": None}))
    assert found.clean, found.offenders
    assert found.messages == ROWS


def test_a_missing_result_is_found(clean: Written) -> None:
    place = clean.results.pop(100).place
    found = judged(clean.copied())
    assert places(found, I.COMPLETE) == [(clean.settings.input_topic, *place)]
    assert failed(found) == {I.COMPLETE, I.ATOMIC}  # its chunk is incomplete
    assert found.accounted == ROWS - 1


def test_a_missing_dead_letter_is_found(clean: Written) -> None:
    place = clean.dead_letters.pop(3).letter_place
    found = judged(clean.copied())
    assert places(found, I.COMPLETE) == [(clean.settings.input_topic, *place)]


@pytest.mark.parametrize("distance", [0, 150])
def test_a_doubled_result_is_found(clean: Written, distance: int) -> None:
    record = clean.results[20]
    clean.results.insert(21 + distance, record)
    found = judged(clean.copied())
    assert places(found, I.ONCE) == [(clean.settings.input_topic, *record.place)]
    assert failed(found) == {I.ONCE}


def test_a_doubled_dead_letter_is_found(clean: Written) -> None:
    record = clean.dead_letters[2]
    clean.dead_letters.append(record)
    found = judged(clean.copied())
    assert places(found, I.ONCE) == [(clean.settings.input_topic, *record.letter_place)]
    assert failed(found) == {I.ONCE}


def test_a_message_with_a_result_and_a_dead_letter_is_found(clean: Written) -> None:
    place = clean.results[20].place
    add_letter(clean, place, Reason.NOT_JSON)
    found = judged(clean.copied())
    assert places(found, I.ONCE) == [(clean.settings.input_topic, *place)]
    assert failed(found) == {I.ONCE, I.ATOMIC}  # its chunk reports one dead letter fewer


def test_results_of_messages_that_do_not_exist_are_found(clean: Written) -> None:
    record = clean.results[0]
    strangers = [
        record.saying(source_topic="another"),
        record.saying(source_partition=4),
        record.saying(source_partition=-1),
        record.saying(source_offset=-1),
        record.saying(source_offset=2**63 + 5),
    ]
    clean.results += strangers
    settings = clean.copied()
    found = judged(settings)
    count = sum(one.partition == record.partition for one in clean.results)
    assert places(found, I.GENUINE) == [
        (settings.output_topic, record.partition, count - len(strangers) + n) for n in range(len(strangers))
    ]
    assert failed(found) == {I.GENUINE}


def test_records_that_are_no_results_are_found(clean: Written) -> None:
    values: list[bytes | None] = [None, b"", b"{", b"[]", b'"x"', b"{}"]
    clean.results[50:50] = [Record(1, b"k", value) for value in values]
    settings = clean.copied()
    found = judged(settings)
    first = sum(one.partition == 1 for one in clean.results[:50])
    assert places(found, I.GENUINE) == [(settings.output_topic, 1, first + n) for n in range(len(values))]
    assert failed(found) == {I.GENUINE}


def test_results_with_fields_of_the_wrong_type_are_found(clean: Written) -> None:
    good = clean.results[0]
    changes: list[dict[str, Any]] = [
        {"risk_probability": "0.5"},
        {"patient_id": 7},
        {"source_offset": 1.5},
        {"scored_at": None},
    ]
    first = sum(one.partition == 1 for one in clean.results)
    clean.results += [replace(good.saying(**change), partition=1) for change in changes]
    settings = clean.copied()
    found = judged(settings)
    assert places(found, I.GENUINE) == [(settings.output_topic, 1, first + n) for n in range(len(changes))]
    assert failed(found) == {I.GENUINE}


def test_a_dead_letter_without_its_headers_is_found(clean: Written) -> None:
    clean.dead_letters.append(replace(clean.dead_letters[0], headers=[("trace", b"1")]))
    settings = clean.copied()
    partition = clean.dead_letters[0].partition
    offset = sum(one.partition == partition for one in clean.dead_letters) - 1
    found = judged(settings)
    assert places(found, I.GENUINE) == [(settings.dead_letter_topic, partition, offset)]
    assert failed(found) == {I.GENUINE}


@pytest.mark.parametrize("step", [1, -1])
def test_a_trees_probability_wrong_in_the_last_bit_is_found(clean: Written, step: int) -> None:
    record = clean.results[77]
    wrong = float(np.nextafter(record.json["risk_probability"], 0.5 + step))
    clean.results[77] = record.saying(risk_probability=wrong, risk_label=int(wrong >= 0.5))
    found = judged(clean.copied())
    assert places(found, I.CORRECT) == [(clean.settings.input_topic, *record.place)]
    assert "1 units in the last place" in offenders(found, I.CORRECT)[0].problem
    assert failed(found) == {I.CORRECT}
    assert judged(clean.copied().model_copy(update={"model": None})).clean


@pytest.mark.parametrize(("off", "wrong"), [(5e-13, False), (2e-12, True)])
def test_rounding_is_tolerated_except_for_trees(
    worked: Callable[[Path], Written], moody: Path, off: float, wrong: bool
) -> None:
    written = worked(moody)
    record = written.results[77]
    written.results[77] = record.saying(risk_probability=record.json["risk_probability"] + off)
    found = judged(written.copied())
    assert places(found, I.CORRECT) == ([(written.settings.input_topic, *record.place)] if wrong else [])


def test_results_with_wrong_values_are_found(clean: Written) -> None:
    plain = [n for n, one in enumerate(clean.results) if not one.json["implausible"]]
    changes: list[dict[str, Any]] = [
        {"risk_label": 7},
        {"risk_label": None},
        {"risk_probability": None},
        {"risk_probability": None, "risk_label": None},
        {"risk_probability": 1.5, "risk_label": 1},
        {"implausible": ["spo2"]},
    ]
    spoilt = set()
    for position, change in zip(plain[::20], changes, strict=False):
        spoilt.add((clean.settings.input_topic, *clean.results[position].place))
        clean.results[position] = clean.results[position].saying(**change)
    assert len(spoilt) == len(changes)
    found = judged(clean.copied())
    assert {*places(found, I.CORRECT)} == spoilt
    assert failed(found) == {I.CORRECT}


@pytest.mark.parametrize("what", ["patient_id", "event_time", "key"])
def test_a_result_shown_for_somebody_else_is_found(clean: Written, what: str) -> None:
    # The score is right for the message at that offset, but shown for somebody else.
    record = clean.results[33]
    spoilt = replace(record, key=b"p77") if what == "key" else record.saying(**{what: "2026-01-05T08:31:00Z"})
    clean.results[33] = spoilt
    found = judged(clean.copied())
    assert places(found, I.CORRECT) == [(clean.settings.input_topic, *record.place)]
    assert failed(found) == {I.CORRECT}


def test_labels_are_checked_without_the_model(clean: Written) -> None:
    first, second = clean.results[5], clean.results[6]
    clean.results[5] = first.saying(risk_label=1 - first.json["risk_label"])
    clean.results[6] = second.saying(risk_probability=1.5, risk_label=1)
    found = judged(clean.copied().model_copy(update={"model": None}))
    assert places(found, I.CORRECT) == [(clean.settings.input_topic, *one.place) for one in (first, second)]


def test_labels_are_judged_by_the_results_own_threshold(clean: Written) -> None:
    clean.results = [
        one.saying(threshold=0.0, risk_label=1) if one.json["risk_label"] is not None else one
        for one in clean.results
    ]
    assert judged(clean.copied()).clean


def test_dead_letters_with_the_wrong_reason_are_found(clean: Written) -> None:
    told = [{"reason": "bad_time"}, {"reason": "too_large"}, {"reason": "model_rejected"}, {"field": "age"}]
    spoilt = {(clean.settings.input_topic, *one.letter_place) for one in clean.dead_letters[: len(told)]}
    for number, headers in enumerate(told):
        clean.dead_letters[number] = clean.dead_letters[number].headed(**headers)
    settings = clean.copied()
    found = judged(settings)
    assert {*places(found, I.CORRECT)} == spoilt
    assert {one.problem for one in offenders(found, I.CORRECT)} == {OTHER_CAUSE}
    assert failed(found) == {I.CORRECT}
    # without the model it is not known which fields there are
    assert judged(settings.model_copy(update={"model": None})).clean


OF_NO_MESSAGE: dict[str, Callable[[Record], Record]] = {
    "value changed": lambda letter: replace(letter, value=(letter.value or b"") + b" "),
    "value empty": lambda letter: replace(letter, value=b""),
    "no value": lambda letter: replace(letter, value=None),
    "key changed": lambda letter: replace(letter, key=b"p77"),
    "no key": lambda letter: replace(letter, key=None),
    "key moved into the value": lambda letter: replace(
        letter, key=b"", value=(letter.key or b"") + (letter.value or b"")
    ),
    "a header more": lambda letter: replace(letter, headers=[("trace", b"1"), *letter.headers]),
    "another time": lambda letter: letter.headed(timestamp="1"),
    "pointer with a value": lambda letter: letter.headed(pointer="1"),
    "pointer with another key": lambda letter: replace(letter.headed(pointer="1"), key=b"p77", value=b""),
}


def test_dead_letters_that_differ_from_their_messages_are_found(clean: Written) -> None:
    wanted = {}
    for number, (what, spoil) in enumerate(OF_NO_MESSAGE.items()):
        wanted[clean.settings.input_topic, *clean.dead_letters[number].letter_place] = what
        clean.dead_letters[number] = spoil(clean.dead_letters[number])
    settings = clean.copied()
    for model in (settings.model, None):
        found = judged(settings.model_copy(update={"model": model}))
        assert {what for place, what in wanted.items() if place not in places(found, I.CORRECT)} == set()
        assert {one.problem for one in found.offenders} == {NOT_ITS_MESSAGE}
        verdict = next(one for one in found.verdicts if one.invariant is I.CORRECT)
        assert verdict.failed == len(OF_NO_MESSAGE)
        assert failed(found) == {I.CORRECT}


def test_a_dead_letter_that_is_only_a_pointer_is_clean(clean: Written) -> None:
    whole, keyless = (replace(one.headed(pointer="1"), value=b"") for one in clean.dead_letters[3:5])
    clean.dead_letters[3:5] = [whole, replace(keyless, key=None)]
    found = judged(clean.copied())
    assert found.clean, found.offenders


def test_every_kind_of_dead_letter_a_worker_writes_is_clean(make_settings: MakeSettings, tree: Path) -> None:
    settings = make_settings(model=tree, max_dead_letter_ratio=1)
    kafka = settings.bootstrap_servers
    limit_topic(settings, settings.dead_letter_topic, 2000)
    odd: Headers = [("t", b"1"), ("t", b""), ("none", None), ("dlq.reason", b"of another"), ("", b"x")]
    headers: list[Headers] = [[], odd, [("long", b"x" * 1500)]]
    records = [
        Record(0, key, value, told)
        for key in (b"p", b"", None, b"k" * 1500)
        for value in (None, b"", b"{", b"[]", b"x" * 3000, b"x" * 300_000)
        for told in headers
    ]
    publish(Producer({"bootstrap.servers": kafka}), settings.input_topic, records)
    work(settings)
    made = written(settings)
    assert len(made.dead_letters) == len(records)
    assert 0 < sum("dlq.pointer" in dict(one.headers) for one in made.dead_letters) < len(records)
    for model in (tree, None):
        found = judged(settings.model_copy(update={"model": model}))
        assert found.clean, found.offenders


@pytest.mark.parametrize("reason", [Reason.NOT_JSON, Reason.MODEL_REJECTED])
def test_a_dead_letter_that_could_have_been_scored_is_found(clean: Written, reason: Reason) -> None:
    place = clean.results.pop(40).place
    add_letter(clean, place, reason)
    found = judged(clean.copied())
    assert places(found, I.CORRECT) == [(clean.settings.input_topic, *place)]


def test_a_result_for_an_undecodable_message_is_found(clean: Written) -> None:
    letter = clean.dead_letters.pop(0)
    partition, offset = letter.letter_place
    clean.results.append(clean.results[0].saying(source_partition=partition, source_offset=offset))
    found = judged(clean.copied())
    assert places(found, I.CORRECT) == [(clean.settings.input_topic, partition, offset)]


def under(written: Written, model: Path) -> Settings:
    """A copy in which every result claims to come from `model`, and that model to judge it by."""
    sha256 = pinned_sha256(model)
    written.results = [one.saying(model=sha256) for one in written.results]
    return written.copied().model_copy(update={"model": model})


def test_results_for_rows_on_which_the_model_raises_are_found(
    worked: Callable[[Path], Written], moody: Path, tmp_path: Path
) -> None:
    written = worked(moody)
    found = judged(under(written, save(Strict(), tmp_path / "strict.joblib")))
    refused = [one for one in written.results if (one.json["risk_probability"] or 0) >= 100 / 350]
    verdict = next(one for one in found.verdicts if one.invariant is I.CORRECT)
    nulls = sum(one.json["risk_probability"] is None for one in written.results)
    # the hand-written model returns NaN for some rates above 100
    assert verdict.failed == len(refused) + nulls
    assert {one.problem for one in offenders(found, I.CORRECT)} == {
        "has a result, but the model raises on it"
    }
    assert failed(found) == {I.CORRECT}


def test_dead_letters_of_rows_that_the_model_accepts_are_found(
    worked: Callable[[Path], Written], moody: Path, tmp_path: Path
) -> None:
    written = worked(moody)
    found = judged(under(written, save(Placid(), tmp_path / "placid.joblib")))
    rejected = {
        (written.settings.input_topic, *one.letter_place)
        for one in written.dead_letters
        if dict(one.headers)["dlq.reason"] == b"model_rejected"
    }
    nulls = {
        (written.settings.input_topic, *one.place)
        for one in written.results
        if one.json["risk_probability"] is None
    }
    assert rejected
    assert {*places(found, I.CORRECT)} == rejected | nulls
    assert {one.problem for one in offenders(found, I.CORRECT)} == {
        "was dead-lettered as rejected by the model, which accepts it",
        "its probability is null where offline scoring gives a number, or vice versa",
    }


def test_offsets_committed_for_a_deleted_topic_are_found(clean: Written) -> None:
    settings = clean.copied()
    partition = busiest(clean)
    commit(settings, {partition: clean.committed[partition]}, metadata="the id of the one before")
    found = judged(settings)
    assert places(found, I.OFFSETS) == [(settings.input_topic, partition, clean.committed[partition])]
    assert failed(found) == {I.OFFSETS}


def test_offsets_committed_too_far_are_found(clean: Written) -> None:
    partition = busiest(clean)
    committed = clean.committed[partition]
    clean.committed[partition] += 5
    found = judged(clean.copied())
    assert places(found, I.OFFSETS) == [(clean.settings.input_topic, partition, committed)]
    assert failed(found) == {I.OFFSETS}


def test_offsets_committed_past_a_missing_result_are_found(clean: Written) -> None:
    partition = busiest(clean)
    last = clean.results.pop(of_partition(clean, partition)[-1]).place
    found = judged(clean.copied())
    assert (clean.settings.input_topic, *last) in places(found, I.COMPLETE)


def test_offsets_committed_too_short_are_found(clean: Written) -> None:
    partition = busiest(clean)
    clean.committed[partition] -= 3
    found = judged(clean.copied())
    assert places(found, I.OFFSETS) == [(clean.settings.input_topic, partition, clean.committed[partition])]
    assert failed(found) == {I.OFFSETS}


def test_a_partition_never_committed_is_found(clean: Written) -> None:
    partition = busiest(clean)
    del clean.committed[partition]
    found = judged(clean.copied())
    assert places(found, I.OFFSETS) == [(clean.settings.input_topic, partition, 0)]
    assert found.notes


def test_two_swapped_results_of_a_patient_are_found(clean: Written) -> None:
    first, second = [n for n, one in enumerate(clean.results) if one.key == b"p4"][3:5]
    earlier = clean.results[first].place
    clean.results[first], clean.results[second] = clean.results[second], clean.results[first]
    found = judged(clean.copied())
    assert (clean.settings.input_topic, *earlier) in places(found, I.ORDERED)
    assert failed(found) == {I.ORDERED}


def test_two_swapped_dead_letters_are_found(clean: Written) -> None:
    letters = clean.dead_letters
    tracks = [(one.partition, one.letter_place[0]) for one in letters]
    busy = max(tracks, key=tracks.count)
    first, second = [n for n, track in enumerate(tracks) if track == busy][:2]
    letters[first], letters[second] = letters[second], letters[first]
    found = judged(clean.copied())
    assert places(found, I.ORDERED) == [(clean.settings.input_topic, *letters[second].letter_place)]
    assert failed(found) == {I.ORDERED}


def test_chunks_that_do_not_add_up_are_found(clean: Written) -> None:
    changes: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
        lambda one: {"rows": one["rows"] + 1},
        lambda one: {"rows": one["rows"] + 1, "scored": one["scored"] + 1},
        lambda one: {"scored": one["scored"] - 1, "dead_lettered": one["dead_lettered"] + 1},
        lambda one: {"offsets": {}},
        lambda one: {"offsets": {"another-0": [0, 1]}},
        lambda one: {"offsets": {name: [last, first - 1] for name, (first, last) in one["offsets"].items()}},
        lambda one: {"closed_by": "magic"},
    ]
    spoilt = []
    fit = [position for position, one in enumerate(clean.metrics) if one.json["scored"] > 1]
    for position, change in zip(fit[: len(changes)], changes, strict=True):
        record = clean.metrics[position]
        clean.metrics[position] = record.saying(**change(record.json))
        spoilt.append(
            (record.partition, sum(one.partition == record.partition for one in clean.metrics[:position]))
        )
    settings = clean.copied()
    found = judged(settings)
    named = places(found, I.ATOMIC)
    assert {*named} >= {(settings.metrics_topic, *place) for place in spoilt}
    assert failed(found) == {I.ATOMIC}


def test_overlapping_chunks_are_found(clean: Written) -> None:
    position = some_chunk(clean)
    record = clean.metrics[position]
    clean.metrics.append(record)
    settings = clean.copied()
    found = judged(settings)
    offset = sum(one.partition == record.partition for one in clean.metrics) - 1
    assert places(found, I.ATOMIC) == [(settings.metrics_topic, record.partition, offset)]
    assert "overlaps" in offenders(found, I.ATOMIC)[0].problem


def test_a_missing_chunk_is_found(clean: Written) -> None:
    record = clean.metrics.pop(some_chunk(clean))
    found = judged(clean.copied())
    verdict = next(one for one in found.verdicts if one.invariant is I.ATOMIC)
    assert verdict.failed == record.json["rows"]
    assert failed(found) == {I.ATOMIC}
    name, (first, _) = min(record.json["offsets"].items())
    topic, _, partition = name.rpartition("-")
    assert (topic, int(partition), first) in places(found, I.ATOMIC)


def test_an_incomplete_chunk_is_found(clean: Written) -> None:
    """Its second half never became visible."""
    position = some_chunk(clean)
    spans = clean.metrics[position].json["offsets"]
    name, (first, last) = max(spans.items(), key=lambda span: span[1][1] - span[1][0])
    partition = int(name.rpartition("-")[2])
    lost = {(partition, offset) for offset in range((first + last + 1) // 2, last + 1)}
    clean.results = [one for one in clean.results if one.place not in lost]
    settings = clean.copied()
    found = judged(settings)
    offset = sum(one.partition == clean.metrics[position].partition for one in clean.metrics[:position])
    assert places(found, I.ATOMIC) == [(settings.metrics_topic, clean.metrics[position].partition, offset)]
    assert failed(found) >= {I.ATOMIC, I.COMPLETE}


def test_ten_offenders_are_named_and_all_are_counted(clean: Written) -> None:
    lost = clean.results[:70]
    del clean.results[:70]
    found = judged(clean.copied())
    counts = {one.invariant: one.failed for one in found.verdicts}
    assert counts[I.COMPLETE] == 70
    assert len(found.offenders) == 10
    named = [(partition, offset) for _, partition, offset in places(found, I.COMPLETE)]
    assert named == sorted(one.place for one in lost)[: len(named)]
    assert offenders(found, I.ATOMIC)


def test_progress_reaches_the_end(clean: Written) -> None:
    seen: list[Progress] = []
    settings = clean.copied()
    judged(settings, on_progress=seen.append)
    last = {one.stage: one for one in seen}
    assert {*settings.topics} <= {*last}
    assert all(one.share == 1 for one in last.values())
    assert last[settings.output_topic].rows == len(clean.results)
    assert last[settings.input_topic].rows == ROWS


def test_a_group_without_commits_or_topics_cannot_be_audited(
    settings: Settings, kafka: str, make_settings: MakeSettings
) -> None:
    with pytest.raises(NotAuditableError, match=settings.group):
        judged(settings)
    with pytest.raises(TopicError):
        judged(fresh_settings(kafka))
