"""The kinds of model that people use, made and fitted as they would: `make models` tries each of them."""

from collections.abc import Callable
from typing import Any, Final

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from catboost import CatBoostClassifier
from imblearn.ensemble import BalancedRandomForestClassifier
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as imblearn_pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from schemas.contract import STANDARD_FEATURES

NUMBERS: Final = list(STANDARD_FEATURES)
CATEGORY: Final = "age_band"
"""A column that some kinds use as a category: the decade of the age, as a number."""
TEXT: Final = "age_group"
"""The same as text, for the kinds in WITH_TEXT."""


def lr() -> Any:
    return LogisticRegression(max_iter=1000)


def imputed(*steps: Any) -> Pipeline:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), *steps)


def linear() -> Pipeline:
    return imputed(lr())


def forest(**parameters: Any) -> Any:
    return RandomForestClassifier(100, max_depth=8, random_state=0, **parameters)


def boosting(**parameters: Any) -> Any:
    return HistGradientBoostingClassifier(max_iter=100, **parameters)


def xgb(**parameters: Any) -> Any:
    return xgboost.XGBClassifier(**{"n_estimators": 100, "max_depth": 5, **parameters})


def lgbm(**parameters: Any) -> Any:
    return lightgbm.LGBMClassifier(n_estimators=100, verbose=-1, **parameters)


def catboost(**parameters: Any) -> Any:
    return CatBoostClassifier(iterations=100, verbose=0, allow_writing_files=False, **parameters)


def columns(encoder: Any, category: str) -> Any:
    return make_column_transformer((imputed(), NUMBERS), (encoder, [category]))


def one_hot(category: str = CATEGORY) -> Any:
    return columns(OneHotEncoder(handle_unknown="ignore"), category)


def ordinal(category: str = CATEGORY) -> Any:
    return columns(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), category)


def named(*parts: Any) -> list[tuple[str, Any]]:
    return [(str(place), part) for place, part in enumerate(parts)]


class Frozen:
    """A model fitted earlier, on which another one is built later."""

    def fit(self, X: Any, y: Any) -> Any:
        """Returns the calibrated one."""
        return CalibratedClassifierCV(FrozenEstimator(boosting().fit(X, y))).fit(X, y)


class EarlyStopped:
    """XGBoost, which keeps the trees added after its best iteration."""

    def fit(self, X: Any, y: Any) -> Any:
        """Returns the classifier."""
        model = xgb(n_estimators=300, early_stopping_rounds=5)
        return model.fit(X[::2], y[::2], eval_set=[(X[1::2], y[1::2])], verbose=False)


class Net:
    """A hand-written neural net in single precision."""

    def fit(self, X: Any, y: Any) -> Any:
        """Sets random weights."""
        random = np.random.default_rng(0)
        self.classes_, self.feature_names_in_ = np.unique(y), np.array([*X], object)
        self.center_, self.scale_ = X.mean().to_numpy(), X.std().to_numpy()
        self.hidden_ = random.normal(size=(X.shape[1], 64)).astype(np.float32)
        self.out_ = random.normal(size=64).astype(np.float32) / 8
        return self

    def predict_proba(self, X: Any) -> Any:
        """Computes in float32."""
        values = np.nan_to_num((np.asarray(X) - self.center_) / self.scale_).astype(np.float32)
        risk = 1 / (1 + np.exp(-np.tanh(values @ self.hidden_) @ self.out_))
        return np.column_stack([1 - risk, risk])


class Dropout(Net):
    """A net that is still in training mode."""

    def predict_proba(self, X: Any) -> Any:
        """Drops a random fifth of its inputs."""
        values = np.asarray(X)
        return super().predict_proba(
            np.where(np.random.default_rng().random(values.shape) < 0.2, np.nan, values)
        )


def median_of_the_batch(X: pd.DataFrame) -> pd.DataFrame:
    """Missing values filled from the rows that happen to be scored together."""
    return X.fillna(X.median()).fillna(0)


def filled_from_above(X: pd.DataFrame) -> pd.DataFrame:
    """Missing values filled from the row above, whoever's it is."""
    return X.ffill().fillna(0)


def scaled_in_the_batch(X: pd.DataFrame) -> pd.DataFrame:
    """Scaled by the rows that happen to be scored together."""
    filled = X.fillna(0)
    return (filled - filled.mean()) / (filled.std(ddof=0) + 1e-9)


class Booster:
    """A model fitted without scikit-learn's interface."""

    def fit(self, X: Any, y: Any) -> Any:
        """Returns a Booster."""
        return xgb(n_estimators=5).fit(X, y).get_booster()


UNFITTED: Final[dict[str, Callable[[], Any]]] = {
    "LR": linear,
    "LR-CV": lambda: imputed(LogisticRegressionCV(Cs=3, cv=3, max_iter=1000, use_legacy_attributes=False)),
    "SGD, log loss": lambda: imputed(SGDClassifier(loss="log_loss", random_state=0)),
    "LDA": lambda: imputed(LinearDiscriminantAnalysis()),
    "QDA": lambda: imputed(QuadraticDiscriminantAnalysis()),
    "GaussianNB": lambda: imputed(GaussianNB()),
    "MLP": lambda: imputed(MLPClassifier((32,), max_iter=60, random_state=0)),
    "SVC": lambda: imputed(CalibratedClassifierCV(SVC(), ensemble=False)),
    "linear SVC, calibrated": lambda: imputed(CalibratedClassifierCV(LinearSVC())),
    "KNN": lambda: imputed(KNeighborsClassifier(15)),
    "decision tree": lambda: DecisionTreeClassifier(max_depth=8, random_state=0),
    "RF": forest,
    "RF, n_jobs=2": lambda: forest(n_jobs=2),
    "ExtraTrees": lambda: ExtraTreesClassifier(100, max_depth=8, random_state=0),
    "GB": lambda: make_pipeline(SimpleImputer(), GradientBoostingClassifier()),
    "HGB": boosting,
    "HGB, categorical": lambda: boosting(categorical_features=[CATEGORY]),
    "AdaBoost": lambda: make_pipeline(SimpleImputer(), AdaBoostClassifier(n_estimators=50)),
    "Bagging of LR": lambda: BaggingClassifier(linear(), 10, random_state=0),
    "balanced RF": lambda: BalancedRandomForestClassifier(100, max_depth=8, random_state=0),
    "XGBoost": xgb,
    "XGBoost, stopped early": EarlyStopped,
    "XGBoost in a Pipeline": lambda: imputed(xgb()),
    "XGBoost, DART": lambda: xgb(booster="dart", n_estimators=30),
    "LightGBM": lgbm,
    "LightGBM in a Pipeline": lambda: imputed(lgbm()),
    "CatBoost": catboost,
    "CatBoost in a Pipeline": lambda: imputed(catboost()),
    "GridSearch of LR": lambda: GridSearchCV(linear(), {"logisticregression__C": [0.1, 1]}, cv=2),
    "GridSearch of HGB": lambda: GridSearchCV(boosting(), {"max_depth": [3, None]}, cv=2),
    "RandomizedSearch of RF": lambda: RandomizedSearchCV(
        forest(), {"min_samples_leaf": [1, 5]}, n_iter=2, cv=2
    ),
    "TunedThreshold of LR": lambda: TunedThresholdClassifierCV(linear(), cv=3),
    "FixedThreshold of HGB": lambda: FixedThresholdClassifier(boosting(), threshold=0.2),
    "SMOTE and LR": lambda: imblearn_pipeline(
        SimpleImputer(strategy="median"), SMOTE(random_state=0), StandardScaler(), lr()
    ),
    "under-sampling and RF": lambda: imblearn_pipeline(
        SimpleImputer(), RandomUnderSampler(random_state=0), forest()
    ),
    "calibrated LR": lambda: CalibratedClassifierCV(linear()),
    "calibrated RF, isotonic": lambda: CalibratedClassifierCV(forest(), method="isotonic"),
    "calibrated XGBoost": lambda: CalibratedClassifierCV(xgb()),
    "calibrated, frozen HGB": Frozen,
    "voting of LR, RF, HGB": lambda: VotingClassifier(named(linear(), forest(), boosting()), voting="soft"),
    "stacking of LR, RF, HGB": lambda: StackingClassifier(named(linear(), forest(), boosting()), lr(), cv=3),
    "ColumnTransformer and LR": lambda: make_pipeline(one_hot(), lr()),
    "ColumnTransformer and HGB": lambda: make_pipeline(ordinal(), boosting()),
    "ColumnTransformer and RF": lambda: make_pipeline(one_hot(), forest()),
    "text one-hot and LR": lambda: make_pipeline(one_hot(TEXT), lr()),
    "text numbered and HGB": lambda: make_pipeline(ordinal(TEXT), boosting()),
    "text one-hot and RF": lambda: make_pipeline(one_hot(TEXT), forest()),
    "text one-hot and MLP": lambda: make_pipeline(
        one_hot(TEXT), MLPClassifier((32,), max_iter=60, random_state=0)
    ),
    "gaps marked, and LR": lambda: make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), lr()),
    "polynomials and LR": lambda: imputed(PolynomialFeatures(2), lr()),
    "splines and LR": lambda: imputed(SplineTransformer(), lr()),
    "quantiles and LR": lambda: make_pipeline(SimpleImputer(), QuantileTransformer(), lr()),
    "powers and LR": lambda: make_pipeline(SimpleImputer(), PowerTransformer(), lr()),
    "bins and LR": lambda: make_pipeline(
        SimpleImputer(), KBinsDiscretizer(quantile_method="averaged_inverted_cdf"), lr()
    ),
    "a function and LR": lambda: make_pipeline(SimpleImputer(), FunctionTransformer(np.arcsinh), lr()),
    "KNNImputer and RF": lambda: make_pipeline(KNNImputer(), forest()),
    "IterativeImputer and LR": lambda: make_pipeline(IterativeImputer(random_state=0), lr()),
    "a net in single precision": Net,
    "IterativeImputer with posterior samples": lambda: make_pipeline(
        IterativeImputer(sample_posterior=True, max_iter=2), lr()
    ),
    "medians of the batch": lambda: make_pipeline(FunctionTransformer(median_of_the_batch), lr()),
    "filled from the row above": lambda: make_pipeline(FunctionTransformer(filled_from_above), lr()),
    "scaled in the batch": lambda: make_pipeline(FunctionTransformer(scaled_in_the_batch), lr()),
    "a net with dropout": Dropout,
    "XGBoost's own Booster": Booster,
    "LinearSVC": lambda: imputed(LinearSVC()),
}
"""How to make each kind, by name; `fit` returns the model."""

WITH_TEXT: Final = frozenset(kind for kind in UNFITTED if kind.startswith("text "))
"""The kinds fitted to text as well; the others get only numbers."""
