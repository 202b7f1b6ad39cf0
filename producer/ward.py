"""A simulated ward: seeded patients with plausible vitals, some of whom deteriorate over hours.

For demonstrations and tests; nothing here is a clinical model. `physiology.py` has the numbers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, cycle, islice
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from broker.errors import SettingsError
from producer.physiology import (
    ILLNESSES,
    VITALS,
    Array,
    Gaps,
    Wander,
    circadian,
    draw_baselines,
    effects,
    measured,
    severity,
)
from producer.sources import Record
from schemas.clock import rfc3339
from schemas.contract import EVENT_TIME, PATIENT_ID, STANDARD_FEATURES

STABLE: Final = "stable"
FRAME_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Patient:
    """A simulated patient. `outcome` is `stable` or an illness, which begins `onset_h` hours after the ward's start
    and is fully developed `ramp_h` hours later."""

    patient_id: str
    age: int
    outcome: str
    onset_h: float
    ramp_h: float


class Reading(NamedTuple):
    """What a patient's monitor sends at one time: the standard features in order, None if missing."""

    patient: Patient
    at: float  # Unix seconds
    values: tuple[float | None, ...]


class _Tick(NamedTuple):
    at: Array  # patients, Unix seconds
    values: Array  # patients x 7 vitals, NaN if missing
    present: NDArray[np.bool_]  # patients


class Ward:
    """Patients and their readings; the same arguments give the same ward.

    Args:
        patients: their number.
        seed: the random seed.
        deteriorating: the share who fall ill; the illnesses alternate.
        onset_h: range of hours after the start in which illness begins.
        ramp_h: range of hours in which it develops fully.

    Raises SettingsError if these make no sense.
    """

    def __init__(
        self,
        *,
        patients: int = 40,
        seed: int = 0,
        deteriorating: float = 0.2,
        onset_h: tuple[float, float] = (6.0, 36.0),
        ramp_h: tuple[float, float] = (3.0, 9.0),
    ) -> None:
        if patients < 1 or not 0 <= deteriorating <= 1:
            raise SettingsError(
                "a ward needs at least one patient, and a share from 0 to 1 that deteriorates"
            )
        if not 0 <= onset_h[0] <= onset_h[1] or not 0 < ramp_h[0] <= ramp_h[1]:
            raise SettingsError("onset_h and ramp_h are ranges of hours, low to high, the ramp above 0")
        random = np.random.default_rng([seed, 0])
        self._seed = seed
        self._baselines, self._ages = draw_baselines(patients, random)
        outcomes = _outcomes(patients, deteriorating, random)
        self._effects = effects(outcomes, random)
        self._onset_h = random.uniform(*onset_h, patients)
        self._ramp_h = random.uniform(*ramp_h, patients)
        self._stagger = np.sort(random.random(patients))
        self.patients: tuple[Patient, ...] = tuple(
            Patient(f"sim-{number:0{len(str(patients))}}", int(age), outcome, float(onset), float(ramp))
            for number, age, outcome, onset, ramp in zip(
                count(1), self._ages, outcomes, self._onset_h, self._ramp_h, strict=False
            )
        )

    def readings(self, start: datetime, interval_s: float) -> Iterator[Reading]:
        """Endless readings in order of time: one per patient every `interval_s`, none while off the monitor.

        `start` is the ward's hour 0, with a zone; its time of day sets the daily rhythm. The same arguments
        give the same readings.
        """
        for tick in self._ticks(start, interval_s):
            columns = map(_plain, tick.values.T, VITALS.values())
            rows = zip(*columns, self._ages.astype(int).tolist(), strict=True)
            for *reading, present in zip(self.patients, tick.at.tolist(), rows, tick.present, strict=True):
                if present:
                    yield Reading(*reading)

    def frame(self, *, hours: float, interval_s: float = 3600, start: datetime = FRAME_START) -> Any:
        """The readings of the first `hours` as a DataFrame to train with.

        Columns: `patient_id`, `event_time` (UTC), the standard features (float64, NaN where lacking),
        `outcome`, and `label`: 1 from the onset of an illness onwards, else 0.
        """
        import pandas as pd  # imported here, because sending does not need it

        ticks = [*islice(self._ticks(start, interval_s), int(hours * 3600 / interval_s))]
        values = np.concatenate([np.column_stack([tick.values, self._ages]) for tick in ticks])
        at = np.concatenate([tick.at for tick in ticks])
        onset = start.timestamp() + np.tile(self._onset_h * 3600, len(ticks))
        outcomes = np.tile([patient.outcome for patient in self.patients], len(ticks))
        frame = pd.DataFrame(values, columns=list(STANDARD_FEATURES))
        frame.insert(0, PATIENT_ID, np.tile([patient.patient_id for patient in self.patients], len(ticks)))
        frame.insert(1, EVENT_TIME, pd.to_datetime(at, unit="s", utc=True))
        frame["outcome"] = outcomes
        frame["label"] = ((outcomes != STABLE) & (at >= onset)).astype(int)
        return frame[np.concatenate([tick.present for tick in ticks])].reset_index(drop=True)

    def _ticks(self, start: datetime, interval_s: float) -> Iterator[_Tick]:
        if start.tzinfo is None or not 0 < interval_s < math.inf:
            raise SettingsError("readings need a start with a time zone and an interval above 0 seconds")
        random = np.random.default_rng([self._seed, 1])
        wander = Wander(len(self.patients), interval_s / 3600, random)
        gaps = Gaps(len(self.patients), interval_s / 3600, random)
        midnight_h = start.hour + start.minute / 60
        for number in count():
            hours = (number + self._stagger) * interval_s / 3600
            ill = severity(hours, self._onset_h, self._ramp_h)[:, None] * self._effects
            true = self._baselines + wander.step() + circadian(midnight_h + hours) + ill
            values = measured(true, random)
            away, lacking = gaps.step()
            values[lacking] = np.nan
            yield _Tick(start.timestamp() + hours * 3600, values, ~away)


def record(reading: Reading) -> Record:
    """A reading as a message."""
    return {
        PATIENT_ID: reading.patient.patient_id,
        EVENT_TIME: rfc3339(reading.at),
        **dict(zip(STANDARD_FEATURES, reading.values, strict=True)),
    }


def _outcomes(patients: int, deteriorating: float, random: Generator) -> list[str]:
    ill = round(patients * deteriorating)
    outcomes = [*islice(cycle(ILLNESSES), ill), *[STABLE] * (patients - ill)]
    return [outcomes[place] for place in random.permutation(patients)]


def _plain(column: Array, vital: Any) -> list[float | None]:
    """A vital's values for JSON: whole numbers if shown as such, None for NaN."""
    kind = float if vital.decimals else int
    return [None if value != value else kind(value) for value in column.tolist()]  # noqa: PLR0124
