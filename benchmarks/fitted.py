"""The models used for scoring, fitted to the benchmark's own rows, and saved so that all contenders load the same."""

from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.rows import Rows
from real_time.history import PatientHistory, Window
from real_time.model_file import pin_model
from schemas.contract import STANDARD_FEATURES

LR: Final = "LR"
HGB: Final = "HGB"
RF: Final = "RF"
PLAIN_RF: Final = "RF, plain predict_proba"
LR_SMALL: Final = "LR, small history"
LR_FULL: Final = "LR, full history"
LR_LAST: Final = "LR, last values and ages"

_LAST: Final = dict.fromkeys((name for name in STANDARD_FEATURES if name != "age"), "8h")
HISTORIES: Final = {
    LR_SMALL: PatientHistory(_LAST),
    LR_FULL: PatientHistory(_LAST, windows=[Window("1h"), Window("6h"), Window("24h")]),
    LR_LAST: PatientHistory(_LAST, delta=False, since_first_seen=False, rows_seen=False),
}

_TRAINING: Final = 50_000


class Plain:
    """A model that the worker knows nothing about, so it calls plain `predict_proba`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.classes_ = model.classes_
        self.feature_names_in_ = model.feature_names_in_

    def predict_proba(self, X: Any) -> Any:
        """The model's own."""
        return self._model.predict_proba(X)


class Models:
    """Fits each model on first use."""

    def __init__(self, rows: Rows, directory: Path) -> None:
        self._rows = rows
        self._directory = directory
        self._made: dict[str, tuple[Path, Any]] = {}

    def path(self, name: str) -> Path:
        """The pinned file."""
        return self._get(name)[0]

    def model(self, name: str) -> Any:
        """The fitted model."""
        return self._get(name)[1]

    def _get(self, name: str) -> tuple[Path, Any]:
        if name not in self._made:
            model = Plain(self.model(RF)) if name == PLAIN_RF else self._fit(name)
            path = self._directory / f"model-{len(self._made)}.joblib"
            joblib.dump(model, path)
            pin_model(path)
            self._made[name] = path, model
        return self._made[name]

    def _fit(self, name: str) -> Any:
        if name in HISTORIES:
            model = make_pipeline(clone(HISTORIES[name]), *_unfitted(LR))
            return model.fit(self._rows.frame(_TRAINING), self._rows.label[:_TRAINING])
        rows = np.random.default_rng(0).choice(len(self._rows), _TRAINING)
        model = _unfitted(name).fit(self._rows.features.iloc[rows], self._rows.label[rows])
        return model.set_params(n_jobs=None) if name == RF else model


def _unfitted(name: str) -> Any:
    if name == LR:
        return make_pipeline(
            SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=500)
        )
    if name == HGB:
        return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    return RandomForestClassifier(100, max_depth=10, n_jobs=2, random_state=0)
