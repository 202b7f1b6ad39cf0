"""The simulated ward: reproducible, plausible, and close to the real data where that is available."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from broker.errors import SettingsError
from producer.physiology import ILLNESSES, VITALS
from producer.physionet import HOURLY
from producer.ward import STABLE, Reading, Ward, record
from schemas.contract import STANDARD_FEATURES
from tests.schemas.messages import decoder

FEATURES = list(STANDARD_FEATURES)
MEASURED = FEATURES[:7]  # all except age
SITE_B = Path(__file__).resolve().parents[3] / "shared" / "data" / "physionet2019_site_b.parquet"
START = datetime(2026, 1, 1, 6, tzinfo=UTC)
HOURS = 48


@cache
def frame() -> Any:
    return Ward(patients=1500, seed=11).frame(hours=HOURS)


def readings(ward: Ward, count: int, *, interval_s: float = 60) -> list[Reading]:
    return [*islice(ward.readings(START, interval_s), count)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    def sent(seed: int) -> list[bytes]:
        return [orjson.dumps(record(reading)) for reading in readings(Ward(seed=seed), 500)]

    assert sent(1) == sent(1) != sent(2)
    ward = Ward(seed=1)
    assert readings(ward, 500) == readings(ward, 500)


def test_messages_follow_the_contract() -> None:
    sent = [orjson.dumps(record(reading)) for reading in readings(Ward(), 2000)]
    decoded = decoder(STANDARD_FEATURES)(sent)
    assert decoded.rejects == []
    assert set(orjson.loads(sent[0])) == {"patient_id", "event_time", *FEATURES}


def test_time_advances_by_the_interval() -> None:
    ward = Ward(patients=7)
    found = readings(ward, 4000, interval_s=600)
    times = [reading.at for reading in found]
    assert times == sorted(times)
    assert START.timestamp() <= times[0] < START.timestamp() + 600
    for patient in ward.patients:
        gaps = np.diff([reading.at for reading in found if reading.patient is patient]) / 600
        assert np.allclose(gaps, np.rint(gaps), atol=1e-3)
        assert gaps.min() == pytest.approx(1, abs=1e-3)
    share = len(found) / (7 * (times[-1] - times[0]) / 600)
    assert 0.8 < share < 0.97  # otherwise patients are off the monitor


def test_frame_and_readings_hold_the_same_numbers() -> None:
    ward = Ward(patients=5, seed=3)
    table = ward.frame(hours=4, interval_s=60, start=START)
    found = readings(ward, len(table))
    values = np.array([reading.values for reading in found], dtype=float)
    np.testing.assert_array_equal(table[FEATURES].to_numpy(), values)
    assert [*table.patient_id] == [reading.patient.patient_id for reading in found]
    assert [*table.outcome] == [reading.patient.outcome for reading in found]


def test_all_values_are_within_limits_and_pressures_in_order() -> None:
    table = frame()
    for name, vital in VITALS.items():
        assert table[name].min() >= vital.low
        assert table[name].max() <= vital.high
    pressures = table[["diastolic_bp", "mean_arterial_pressure", "systolic_bp"]].dropna()
    assert (pressures.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert table.age.between(18, 100).all()


def test_a_cuff_measures_both_pressures_or_neither() -> None:
    lacking = frame()[["systolic_bp", "diastolic_bp", "mean_arterial_pressure"]].isna()
    assert (lacking.systolic_bp == lacking.diastolic_bp).all()
    assert lacking.mean_arterial_pressure[lacking.systolic_bp].all()
    assert 0.01 < lacking.systolic_bp.mean() < 0.05


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ("systolic_bp", "diastolic_bp", 0.4, 0.7),
        ("diastolic_bp", "mean_arterial_pressure", 0.75, 0.95),
        ("systolic_bp", "mean_arterial_pressure", 0.65, 0.9),
        ("heart_rate", "temperature", 0.15, 0.4),
        ("heart_rate", "respiratory_rate", 0.1, 0.45),
        ("respiratory_rate", "spo2", -0.45, -0.05),
        ("age", "diastolic_bp", -0.4, -0.1),
        ("age", "heart_rate", -0.3, -0.05),
    ],
)
def test_vitals_correlate_as_in_patients(one: str, other: str, low: float, high: float) -> None:
    assert low < frame()[one].corr(frame()[other]) < high


def test_temperature_and_heart_rate_are_higher_in_the_afternoon_than_at_night() -> None:
    table = frame()[frame().outcome == STABLE]
    mean = table.groupby(table.event_time.dt.hour)[["temperature", "heart_rate"]].mean()
    assert mean.temperature[17] - mean.temperature[5] > 0.2
    assert mean.heart_rate[17] - mean.heart_rate[5] > 2


def test_each_vital_is_correlated_from_hour_to_hour() -> None:
    table = frame()[frame().outcome == STABLE]
    around = table[MEASURED] - table.groupby("patient_id")[MEASURED].transform("mean")
    before = around.groupby(table.patient_id).shift(1)
    for name, low in {"heart_rate": 0.5, "temperature": 0.6, "respiratory_rate": 0.25}.items():
        assert around[name].corr(before[name]) > low


@pytest.mark.parametrize(
    ("illness", "up", "down"),
    [
        (
            "sepsis",
            ["heart_rate", "respiratory_rate", "temperature"],
            ["systolic_bp", "mean_arterial_pressure"],
        ),
        ("bleeding", ["heart_rate", "respiratory_rate"], ["systolic_bp", "mean_arterial_pressure"]),
        ("respiratory_failure", ["respiratory_rate", "heart_rate"], ["spo2"]),
    ],
)
def test_ill_patients_deteriorate(illness: str, up: list[str], down: list[str]) -> None:
    """By more than one standard deviation of the stable patients, in each vital the illness is known by."""
    table = frame()
    ill = table[table.outcome == illness]
    hour = (ill.event_time - table.event_time.min()).dt.total_seconds() / 3600
    change = ill[hour > HOURS - 3][MEASURED].mean() - ill[hour < 6][MEASURED].mean()
    spread = table[table.outcome == STABLE][MEASURED].std()
    for sign, names in ((1, up), (-1, down)):
        for name in names:
            assert sign * change[name] > spread[name], name


def test_stable_patients_do_not_change() -> None:
    table = frame()[frame().outcome == STABLE]
    half = table.event_time < table.event_time.min() + timedelta(hours=HOURS / 2)
    drift = (table[half][MEASURED].mean() - table[~half][MEASURED].mean()).abs()
    assert (drift < 0.1 * table[MEASURED].std()).all()


def test_outcomes_and_labels() -> None:
    ward = Ward(patients=40, deteriorating=0.25, onset_h=(2, 4), ramp_h=(1, 2))
    outcomes = [patient.outcome for patient in ward.patients]
    assert {outcome: outcomes.count(outcome) for outcome in set(outcomes)} == {
        STABLE: 30, "sepsis": 4, "bleeding": 3, "respiratory_failure": 3,
    }  # fmt: skip
    table = ward.frame(hours=6, interval_s=600)
    onset = table.patient_id.map({patient.patient_id: patient.onset_h for patient in ward.patients})
    hours = (table.event_time - datetime(2026, 1, 1, tzinfo=UTC)).dt.total_seconds() / 3600
    assert ((table.outcome != STABLE) & (hours >= onset) == (table.label == 1)).all()
    assert set(ILLNESSES) == {*table[table.label == 1].outcome}


@pytest.mark.parametrize(
    "bad",
    [{"patients": 0}, {"deteriorating": 2}, {"onset_h": (5, 1)}, {"onset_h": (-1, 1)}, {"ramp_h": (0, 1)}],
)
def test_an_invalid_ward_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Ward(**bad)


@pytest.mark.parametrize(("start", "interval_s"), [(datetime(2026, 1, 1), 60), (START, 0), (START, -1)])
def test_readings_need_a_zone_and_an_interval(start: datetime, interval_s: float) -> None:
    with pytest.raises(SettingsError):
        next(Ward().readings(start, interval_s))


@pytest.mark.real_data
@pytest.mark.skipif(not SITE_B.is_file(), reason="../shared/data is missing")
@pytest.mark.parametrize("name", FEATURES)
def test_statistics_match_a_real_hospital(name: str) -> None:
    """Compared with the hourly rows of PhysioNet 2019, hospital B, where 6 % of the patients became septic.

    In units of the real standard deviation, the mean is within 0.15 and the 5th, 50th and 95th percentiles
    are within 0.4; the standard deviation is within 15 %, and the share of hours without a value within 0.02.
    """
    real = pq.read_table(SITE_B, columns=[HOURLY[name]])[0].to_pandas().astype(float)
    ours = like_site_b()[name]
    sd = real.std()
    assert ours.mean() == pytest.approx(real.mean(), abs=0.15 * sd)
    assert ours.std() == pytest.approx(sd, rel=0.15)
    for share in (0.05, 0.5, 0.95):
        assert ours.quantile(share) == pytest.approx(real.quantile(share), abs=0.4 * sd)
    if name != "age":  # age is in every real row, even if nothing was measured
        lacking = 1 - ours.notna().sum() / (1500 * 38)
        assert lacking == pytest.approx(real.isna().mean(), abs=0.02)


@cache
def like_site_b() -> Any:
    """As long as its average stay, and with its share of patients who fall ill."""
    return Ward(patients=1500, seed=11, deteriorating=0.06).frame(hours=38)
