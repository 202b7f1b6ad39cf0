"""How many of the model's features a message has, and whether that is enough to score it."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from broker.errors import SettingsError
from schemas.contract import ENCOUNTER_ID

Ints: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


def features_present(frame: pd.DataFrame) -> Ints:
    """For each row of a decoded frame, how many features have a value. Absent, null and implausible values do not
    count.

    The encounter ID is not counted as a feature.
    """
    if ENCOUNTER_ID in frame.columns:
        frame = frame.drop(columns=ENCOUNTER_ID)
    present: Ints = frame.shape[1] - pd.isna(frame.to_numpy()).sum(axis=1)
    return present


def require_min_features(least: int, features: Sequence[str]) -> None:
    """Raise SettingsError if the model has fewer features than a message needs to be scored."""
    features = [name for name in features if name != ENCOUNTER_ID]
    if least > len(features):
        raise SettingsError(
            f"--min-features {least}: the model has only {len(features)} ({', '.join(features)}), so no message "
            f"would be scored; give a number from 1 up to {len(features)}"
        )
