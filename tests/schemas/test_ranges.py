"""Physiologic limits: values that no body can have are missing for the model, and named."""

from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import SettingsError
from producer.physionet import FORMATS
from producer.sources import find_source
from schemas.contract import STANDARD_FEATURES
from schemas.ranges import PHYSIOLOGIC, RangeCheck, load_ranges
from tests.schemas.messages import TIME, decoder

pytestmark = pytest.mark.usefixtures("kernel")

EVENTS_2012 = Path("../shared/data/physionet2012_set_a_events.parquet")


def message(**vitals: float | None) -> bytes:
    return orjson.dumps({"patient_id": "p", "event_time": TIME, **vitals})


def test_there_is_a_range_for_every_standard_feature() -> None:
    assert set(PHYSIOLOGIC) == set(STANDARD_FEATURES)


def test_impossible_values_are_missing_and_named() -> None:
    decode = decoder(("heart_rate", "temperature", "spo2", "systolic_bp"))
    decoded = decode(
        [
            message(heart_rate=80, temperature=-17.8, spo2=97, systolic_bp=0),
            message(heart_rate=80, temperature=36.9, spo2=97, systolic_bp=120),
            message(heart_rate=None, spo2=300),
        ]
    )
    assert decoded.implausible == [["temperature", "systolic_bp"], [], ["spo2"]]
    nan = np.nan
    expected = [[80, nan, 97, nan], [80, 36.9, 97, 120], [nan, nan, nan, nan]]
    np.testing.assert_array_equal(decoded.frame.to_numpy(), expected)


def test_rejected_neighbours_do_not_shift_the_names() -> None:
    decoded = decoder(("spo2",))([b"", message(spo2=300), b"{", message(spo2=97)])
    assert decoded.implausible == [["spo2"], []]
    assert [*decoded.frame.index] == [1, 3]


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(STANDARD_FEATURES))
def test_the_limits_themselves_are_possible(value: float, feature: str) -> None:
    low, high = PHYSIOLOGIC[feature]
    values = np.array([[value], [low], [high], [np.nan]])
    names = RangeCheck((feature,), PHYSIOLOGIC).clear(values)
    assert names == [[] if low <= value <= high else [feature], [], [], []]


def test_custom_ranges_replace_the_physiologic_ones(tmp_path: Path) -> None:
    file = tmp_path / "ranges.toml"
    file.write_text("lactate = [0.1, 40]\n")
    decode = decoder(("lactate", "spo2"), ranges=load_ranges(str(file), ("lactate", "spo2")))
    assert decode([message(lactate=41, spo2=300)]).implausible == [["lactate"]]


def test_ranges_may_begin_with_a_byte_order_mark_but_must_be_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "ranges.toml"
    file.write_text("spo2 = [1, 100]\n", encoding="utf-8-sig")
    assert load_ranges(str(file), ("spo2",)) == {"spo2": (1, 100)}
    file.write_text("spo2 = [1, 100]\n", encoding="utf-16")
    with pytest.raises(SettingsError, match=r"ranges.toml: not UTF-8 text$"):
        load_ranges(str(file), ("spo2",))


def test_off_keeps_every_value() -> None:
    assert decoder(("spo2",), ranges=load_ranges("off", ("spo2",)))([message(spo2=300)]).implausible == [[]]


@pytest.mark.parametrize(
    "text", ["spo2 = [100, 0]", "spo2 = 3", 'spo2 = ["a", 2]', "spo2 = [nan, 1]", "spo2 ="]
)
def test_malformed_ranges_are_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ranges.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="--ranges"):
        load_ranges(str(file), ("spo2",))


def test_a_range_for_a_feature_the_model_lacks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ranges.toml"
    file.write_text("spo2 = [1, 100]\nhart_rate = [0, 350]\n")
    with pytest.raises(SettingsError) as error:
        load_ranges(str(file), ("spo2", "heart_rate"))
    assert str(error.value) == (
        f"--ranges {file}: the model has no feature hart_rate; it has spo2, heart_rate"
    )


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="give a TOML file, or off"):
        load_ranges("nowhere.toml", ("spo2",))


@pytest.mark.real_data
@pytest.mark.skipif(not EVENTS_2012.exists(), reason="the 2012 Challenge's data is missing")
def test_known_errors_in_the_2012_challenge_are_caught() -> None:
    """Its files are known for temperatures of 0 °F and pressures of 0."""
    source = find_source([EVENTS_2012], FORMATS["physionet2012"])
    values = [orjson.dumps(record, default=str) for _, record in zip(range(100_000), source, strict=False)]
    raw = decoder(STANDARD_FEATURES, ranges={})(values).frame
    decoded = decoder(STANDARD_FEATURES)(values)
    caught = Counter(name for names in decoded.implausible for name in names)
    assert caught["temperature"] >= (raw["temperature"] < 0).sum() > 0
    assert caught["systolic_bp"] >= (raw["systolic_bp"] == 0).sum() > 0
    assert caught["heart_rate"] == 0, "no heart rate in these data is impossible"
    assert sum(caught.values()) < 0.01 * raw.count().sum(), "nearly all values are possible"
