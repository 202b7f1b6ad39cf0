"""What a patient's past is worth: `make history` fits the same classifier with more and more of it.

The rows come from the 2019 PhysioNet Challenge: hourly vitals of 16,000 ICU stays at one hospital, of which every
fourth is held out. The label is the Challenge's: 1 from six hours before the onset of sepsis.
"""

import sys
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.parity import compare
from benchmarks.rows import REAL
from real_time.history import PatientHistory, Window

VITALS: Final = {
    "HR": "heart_rate",
    "Resp": "respiratory_rate",
    "Temp": "temperature",
    "O2Sat": "spo2",
    "SBP": "systolic_bp",
    "DBP": "diastolic_bp",
    "MAP": "mean_arterial_pressure",
}
BARE: Final = {"age": False, "delta": False, "since_first_seen": False, "rows_seen": False}
WINDOWS: Final = (Window("6h"), Window("24h"))
RECIPES: Final[dict[str, dict[str, Any] | None]] = {
    "the row alone": None,
    "last values (8 h)": {},
    "last values and their ages": {"age": True},
    "last values, ages and changes": {"age": True, "delta": True},
    "the same and windows of 6 h and 24 h": {"age": True, "delta": True, "windows": WINDOWS},
    "the same and hours since first seen": {
        "age": True,
        "delta": True,
        "windows": WINDOWS,
        "since_first_seen": True,
    },
    "PatientHistory(): no windows": {"age": True, "delta": True, "since_first_seen": True, "rows_seen": True},
    "last values and hours since first seen": {"since_first_seen": True},
}


def main() -> None:
    if not REAL.exists():
        sys.exit(f"{REAL} is missing, which holds the ICU stays to measure on")
    stays = stays_of(REAL)
    if "--online" in sys.argv[1:]:
        compare(stays, [*VITALS.values()])
        return
    held_out = stays["patient_id"].str.removeprefix("p-").astype(int) % 4 == 0
    table = Table("features", "columns", "AUROC", "AUPRC")
    console = Console()
    with console.status("fitting ..."):
        for name, recipe in RECIPES.items():
            features = _features(stays, recipe)
            model = HistGradientBoostingClassifier(max_iter=150, random_state=0)
            model.fit(features[~held_out], stays.loc[~held_out, "sepsis"])
            risk = model.predict_proba(features[held_out])[:, 1]
            label = stays.loc[held_out, "sepsis"]
            scores = [roc_auc_score(label, risk), average_precision_score(label, risk)]
            table.add_row(name, str(features.shape[1]), *(f"{score:.3f}" for score in scores))
    console.print(table)
    console.print(
        f"{len(stays):,} hours of {stays['patient_id'].nunique():,} stays; judged on {held_out.sum():,} hours of every "
        f"fourth stay, {stays.loc[held_out, 'sepsis'].mean():.2%} of them septic"
    )


def stays_of(path: Path) -> pd.DataFrame:
    """The stays in the order of messages: by hour, and within an hour by stay."""
    raw = pd.read_parquet(path).sort_values(["hour", "stay_id"], kind="stable", ignore_index=True)
    start = pd.Timestamp("2026-01-01T00:00Z")
    frame = raw.rename(columns=VITALS)[[*VITALS.values()]].astype(float)
    number = raw["stay_id"].astype("category").cat.codes
    return frame.assign(
        age_years=raw["Age"].astype(float),
        patient_id="p-" + number.astype(str),
        event_time=start + pd.to_timedelta(raw["hour"], unit="h"),
        sepsis=raw["SepsisLabel"].astype(int),
    )


def _features(stays: pd.DataFrame, recipe: dict[str, Any] | None) -> pd.DataFrame:
    """The vitals or their history, plus the age in years."""
    if recipe is None:
        return stays[[*VITALS.values(), "age_years"]]
    history = PatientHistory(dict.fromkeys(VITALS.values(), "8h"), **{**BARE, **recipe})
    return history.fit_transform(stays).assign(age_years=stays["age_years"])


if __name__ == "__main__":
    main()
