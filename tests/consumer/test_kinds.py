"""The kinds of model that people use, on a real Kafka: each gives its own answer, audited with the model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from audit.run import audit
from tests.consumer.accounts import require_exactly_once
from tests.consumer.conftest import save
from tests.consumer.stage import Stage
from tests.real_time.kinds import FEATURES, fitted, holed, patients

pytestmark = pytest.mark.kafka

ROWS = 200
X, Y = patients(ROWS, seed=5)


def died() -> Any:
    """Has its own threshold, predicts the class that sorts first, and has no feature names."""
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    model = FixedThresholdClassifier(linear, threshold=0.2, pos_label="died")
    return model.fit(X.to_numpy(), np.where(Y == 1, "died", "survived"))


def with_text(values: Any) -> Any:
    units = np.where(np.arange(len(values)) % 3, "ward", "ICU")
    return values.assign(unit=units, on_oxygen=values["spo2"] < 93)


def on_text() -> Any:
    """Text and booleans behind an encoder, and gaps in the numbers."""
    training, labels = patients()
    columns = ColumnTransformer(
        [("text", OneHotEncoder(), ["unit", "on_oxygen"])],
        remainder=make_pipeline(SimpleImputer(), StandardScaler()),
    )
    return make_pipeline(columns, LogisticRegression()).fit(with_text(training), labels)


CASES: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "CatBoost": (lambda: fitted("CatBoost"), {}),
    "forest in threads": (lambda: fitted("under-sampling and RF"), {}),
    "tuned threshold": (lambda: fitted("tuned threshold of LR"), {}),
    "named class and features": (died, {"positive_class": "died", "features": ",".join(FEATURES)}),
    "text and booleans": (on_text, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_model_gives_its_own_answer_and_the_audit_agrees(stage: Stage, name: str) -> None:
    make, given = CASES[name]
    model = make()
    values = with_text(X) if make is on_text else X if given else holed(X)
    settings = stage.settings(chunk_size=7).model_copy(
        update={"model": save(model, stage.folder / "m.joblib"), **given}
    )
    rows = values.astype(object).where(values.notna(), None).to_dict("records")
    stage.send_patients(
        settings,
        [{"patient_id": f"p{n}", "event_time": "2026-01-05T08:00:00Z", **row} for n, row in enumerate(rows)],
    )
    worker = stage.worker(settings)
    stage.wait_committed(settings, ROWS)
    worker.stop()

    found = require_exactly_once(settings, rows=ROWS).by_position.values()
    labels = {one.patient_id: one.risk_label for one in found}
    positive = given.get("positive_class", 1)
    asked = values.to_numpy() if given else values
    expected = {f"p{n}": int(label == positive) for n, label in enumerate(model.predict(asked))}
    assert labels == expected
    assert {*labels.values()} == {0, 1}
    assert audit(settings).clean
