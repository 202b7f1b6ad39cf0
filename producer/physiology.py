"""How simulated vitals behave: the tables, and the arithmetic over all patients at once.

Means, spreads, correlations, memory and missingness were measured on the hourly rows of the
PhysioNet/CinC Challenge 2019, hospital B (Reyna et al., Crit Care Med 2020;48:210-217). The correlations and the
sepsis pattern make pulse and breathing faster with fever; published slopes are
7.2 /min of pulse and 1.4 /min of respiration per degree (Jensen et al., Acute Med 2019), and 8.5 /min of
pulse in young men (Karjalainen and Viitasalo, Arch Intern Med 1986).

Arrays are patients x vitals; six vitals are primary, the mean pressure follows from two of them.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from schemas.contract import STANDARD_FEATURES

Array = NDArray[np.float64]


class Vital(NamedTuple):
    """How one vital behaves, in the units of the standard features."""

    mean: float
    between: float  # sd of the patients' baselines
    within: float  # sd around a patient's baseline
    noise: float  # share of that variance that is uncorrelated noise
    circadian: float  # amplitude of the daily rhythm, highest in the late afternoon
    low: float  # physiologic limits, to which readings are clipped
    high: float
    decimals: int
    lacking: float  # share of readings that lack it
    memory_h: float  # how long it tends to be missing


VITALS: Final[dict[str, Vital]] = dict(
    zip(
        STANDARD_FEATURES[:7],
        (
            Vital(83.5, 15.0, 9.2, 0.25, 2.5, 20, 250, 0, 0.01, 1.0),
            Vital(18.3, 3.0, 3.4, 0.45, 0.5, 4, 60, 0, 0.11, 1.0),
            Vital(36.92, 0.54, 0.48, 0.05, 0.2, 32, 42, 1, 0.62, 0.5),  # charted every few hours
            Vital(97.8, 2.1, 2.6, 0.55, 0.0, 50, 100, 0, 0.03, 1.0),
            Vital(128.5, 18.5, 15.6, 0.40, 3.0, 40, 280, 0, 0.03, 1.0),
            Vital(67.0, 10.5, 9.2, 0.50, 2.0, 20, 180, 0, 0.00, 1.0),  # missing whenever the systolic is
            Vital(0.0, 0.0, 5.0, 1.00, 0.0, 20, 220, 0, 0.01, 1.0),  # around diastole + pulse pressure / 3
        ),
        strict=True,
    )
)
"""The circadian amplitudes are about half of healthy people's, as the rhythm is blunted in intensive care."""

AWAY: Final = 0.115
"""Share of time in which a patient is off the monitor and nothing is sent."""

_PRIMARY = STANDARD_FEATURES[:6]
_SYSTOLIC, _DIASTOLIC, _MEAN_PRESSURE = 4, 5, 6

ILLNESSES: Final[dict[str, dict[str, float]]] = {
    "sepsis": dict(zip(_PRIMARY, (35, 10, 1.6, -3, -38, -20), strict=True)),
    "bleeding": dict(zip(_PRIMARY, (45, 9, -0.5, -1, -42, -16), strict=True)),
    "respiratory_failure": dict(zip(_PRIMARY, (22, 15, 0.2, -11, 8, 3), strict=True)),
}
"""What each fully developed illness adds. An average patient then meets, in sepsis, SIRS and qSOFA
(pulse > 90, respiration >= 22, temperature > 38, systolic <= 100; Bone 1992, Singer 2016); in bleeding, ATLS
class III by pulse (120-140) with lowered pressure and pulse pressure (Rossaint et al., Crit Care
2010;14:R52, table 2); in respiratory failure, NEWS2's highest bands (respiration >= 25, SpO2 <= 91; Royal
College of Physicians 2017)."""

_WANDER_H = 5.0  # memory of a patient's slow fluctuations
_PEAK_HOUR = 17.0
_AGE_MEAN, _AGE_SD, _AGE_LOW, _AGE_HIGH = 60.9, 17.0, 18, 100
_LEAST_PULSE_PRESSURE = 10.0

# Correlations of the primary vitals' baselines, age last, and of the fluctuations around them.
_BASELINES = np.array(
    [
        [1.00, 0.24, 0.27, -0.05, -0.11, 0.09, -0.16],
        [0.24, 1.00, 0.06, -0.21, 0.00, 0.06, 0.05],
        [0.27, 0.06, 1.00, 0.00, 0.00, -0.12, -0.07],
        [-0.05, -0.21, 0.00, 1.00, 0.00, 0.00, -0.10],
        [-0.11, 0.00, 0.00, 0.00, 1.00, 0.52, 0.09],
        [0.09, 0.06, -0.12, 0.00, 0.52, 1.00, -0.28],
        [-0.16, 0.05, -0.07, -0.10, 0.09, -0.28, 1.00],
    ]
)
_CHANGES = np.array(
    [
        [1.00, 0.15, 0.23, -0.10, 0.13, 0.15],
        [0.15, 1.00, 0.12, -0.07, 0.08, 0.06],
        [0.23, 0.12, 1.00, -0.08, 0.03, -0.04],
        [-0.10, -0.07, -0.08, 1.00, 0.02, 0.03],
        [0.13, 0.08, 0.03, 0.02, 1.00, 0.57],
        [0.15, 0.06, -0.04, 0.03, 0.57, 1.00],
    ]
)


def draw_baselines(patients: int, random: Generator) -> tuple[Array, Array]:
    """Baselines of the primary vitals, and the matching ages in whole years."""
    latent = random.standard_normal((patients, 7)) @ np.linalg.cholesky(_BASELINES).T
    ages = np.clip(np.rint(_AGE_MEAN + _AGE_SD * latent[:, 6]), _AGE_LOW, _AGE_HIGH)
    return _primary("mean") + _primary("between") * latent[:, :6], ages


def effects(outcomes: list[str], random: Generator) -> Array:
    """What each patient's fully developed outcome adds: nothing unless it is one of ILLNESSES."""
    table = np.array(
        [[ILLNESSES.get(outcome, {}).get(name, 0.0) for name in _PRIMARY] for outcome in outcomes]
    )
    return np.asarray(table * random.uniform(0.8, 1.2, (len(outcomes), 1)))


def severity(hours: Array, onset_h: Array, ramp_h: Array) -> Array:
    """Rises smoothly from 0 at the onset to 1 after the ramp, and stays there."""
    share = np.clip((hours - onset_h) / ramp_h, 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


def circadian(clock_hours: Array) -> Array:
    """What the daily rhythm adds to the primary vitals at these times of day."""
    phase = np.cos(2 * np.pi * (clock_hours - _PEAK_HOUR) / 24)
    return np.outer(phase, _primary("circadian"))


def measured(true: Array, random: Generator) -> Array:
    """All seven vitals from the primary ones, as a monitor shows them: within limits, consistent, rounded."""
    low, high = _all("low"), _all("high")
    values = np.empty((len(true), len(VITALS)))
    values[:, :_MEAN_PRESSURE] = np.clip(true, low[:_MEAN_PRESSURE], high[:_MEAN_PRESSURE])
    systolic, diastolic = values[:, _SYSTOLIC], values[:, _DIASTOLIC]
    diastolic[:] = np.minimum(diastolic, systolic - _LEAST_PULSE_PRESSURE)
    noise = _all("within")[_MEAN_PRESSURE] * random.standard_normal(len(true))
    ceiling = np.minimum(systolic, high[_MEAN_PRESSURE])
    values[:, _MEAN_PRESSURE] = np.clip(diastolic + (systolic - diastolic) / 3 + noise, diastolic, ceiling)
    scale = 10 ** _all("decimals")
    return np.asarray(np.rint(values * scale) / scale)


class Wander:
    """Patients' fluctuations around their baselines: slow ones (Ornstein-Uhlenbeck) plus noise."""

    def __init__(self, patients: int, step_h: float, random: Generator) -> None:
        self._random = random
        self._shape = (patients, len(_PRIMARY))
        self._mix = np.linalg.cholesky(_CHANGES).T
        self._keep = np.exp(-step_h / _WANDER_H)
        self._renew = np.sqrt(1 - self._keep**2)
        self._slow = self._draw()
        self._slow_sd = _primary("within") * np.sqrt(1 - _primary("noise"))
        self._noise_sd = _primary("within") * np.sqrt(_primary("noise"))

    def step(self) -> Array:
        """The deviations one step later."""
        self._slow = self._keep * self._slow + self._renew * self._draw()
        return np.asarray(self._slow_sd * self._slow + self._noise_sd * self._draw())

    def _draw(self) -> Array:
        return np.asarray(self._random.standard_normal(self._shape) @ self._mix)


class Gaps:
    """Who is off the monitor and which vitals are missing, each as a two-state Markov chain."""

    def __init__(self, patients: int, step_h: float, random: Generator) -> None:
        self._random = random
        share = np.append(_all("lacking"), AWAY)
        forget = 1 - np.exp(-step_h / np.append(_all("memory_h"), 1.0))
        self._begin = share * forget
        self._stay = 1 - (1 - share) * forget
        self._state = random.random((patients, len(share))) < share

    def step(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Who is away (patients) and what is missing (patients x 7), one step later."""
        chance = np.where(self._state, self._stay, self._begin)
        self._state = self._random.random(self._state.shape) < chance
        lacking = self._state[:, :-1].copy()
        lacking[:, _DIASTOLIC:] |= lacking[:, [_SYSTOLIC]]
        return self._state[:, -1], lacking


def _all(property_name: str) -> Array:
    return np.array([getattr(vital, property_name) for vital in VITALS.values()], dtype=float)


def _primary(property_name: str) -> Any:
    return _all(property_name)[: len(_PRIMARY)]
