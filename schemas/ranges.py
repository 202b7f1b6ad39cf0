"""Physiologic limits: impossible values are artefacts, and no model should see them as numbers.

They are wide on purpose. A value within them may still be wrong; a value outside is.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from broker.errors import SettingsError

Ranges = Mapping[str, tuple[float, float]]
"""By feature, the lowest and the highest possible value, both included."""

OFF: Final = "off"

PHYSIOLOGIC: Final[Ranges] = {
    # MIMIC-Extract's valid range, 0 to 350; 0 is asystole.
    "heart_rate": (0, 350),
    # ricu's range, 0 to 120; 0 is apnoea.
    "respiratory_rate": (0, 120),
    # mimic-code's range, 10 to 50; 13.7 and 46.5 have been survived. 0 °F comes out as -17.8 °C.
    "temperature": (10, 50),
    # mimic-code's range, above 0 to 100.
    "spo2": (1, 100),
    # mimic-code's ranges, above 0 to 400 and to 300; a pressure of 0 is a line that was opened or flushed.
    "systolic_bp": (1, 400),
    "diastolic_bp": (1, 300),
    # MIMIC-Extract's valid range ends at 330; it starts at 14, which a dying patient may fall below.
    "mean_arterial_pressure": (1, 330),
    # The oldest person on record died at 122.
    "age": (0, 130),
}


def load_ranges(ranges: str | None, features: Sequence[str]) -> Ranges:
    """The ranges for `--ranges`: None means the physiologic ones, `off` none, else those of a TOML file.

    The file has a line `feature = [lowest, highest]` for each of the model's `features` to be checked, and replaces the
    physiologic ones altogether. Raises SettingsError if it can't be read or has anything else.
    """
    if ranges is None:
        return PHYSIOLOGIC
    if ranges == OFF:
        return {}
    try:
        found = tomllib.loads(Path(ranges).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"--ranges {ranges}: {error.strerror}; give a TOML file, or off") from None
    except UnicodeDecodeError:
        raise SettingsError(f"--ranges {ranges}: not UTF-8 text") from None
    except ValueError as error:
        raise SettingsError(f"--ranges {ranges}: {error}") from None
    if foreign := sorted({*found} - {*features}):
        raise SettingsError(
            f"--ranges {ranges}: the model has no feature {', '.join(foreign)}; it has {', '.join(features)}"
        )
    return {name: _checked(name, limits, ranges) for name, limits in found.items()}


def _checked(name: str, limits: Any, path: str) -> tuple[float, float]:
    match limits:
        case [int() | float() as low, int() | float() as high] if low <= high and not math.isnan(low + high):
            return float(low), float(high)
    raise SettingsError(f"--ranges {path}: {name} must be [lowest, highest], such as [0, 350]")


class RangeCheck:
    """The ranges of a model's features, as arrays."""

    def __init__(self, features: Sequence[str], ranges: Ranges) -> None:
        anything = (-math.inf, math.inf)
        limits = np.array([ranges.get(name, anything) for name in features], dtype=np.float64)
        self._features = tuple(features)
        self._low, self._high = limits.T

    def clear(self, values: "np.ndarray[Any, np.dtype[np.float64]]") -> list[list[str]]:
        """Set values out of range in `values` (rows by features) to NaN; return the features' names by row."""
        # NaN is neither below nor above. Nearly every chunk ends here.
        implausible = (values < self._low) | (values > self._high)
        if not implausible.any():
            return [[]] * len(values)
        values[implausible] = np.nan
        names: list[list[str]] = [[] for _ in values]
        for row, column in np.argwhere(implausible).tolist():
            names[row].append(self._features[column])
        return names
