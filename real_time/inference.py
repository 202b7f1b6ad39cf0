"""Risk from a fitted binary classifier: the same numbers for a whole frame, in chunks or from a stream."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from real_time.card import Card
from real_time.columns import Columns
from real_time.compiled import Floats
from real_time.fast_path import FastPath
from real_time.model_file import ModelError, load_model, model_sha256, pin_model, pinned_sha256
from real_time.prepared import (
    FeaturesError,
    NotABinaryClassifierError,
    PositiveClassError,
    ThresholdError,
    prepare,
)
from real_time.steps import NoFastPathError
from real_time.streaming import Classifier, process_stream

__all__ = [
    "FeaturesError",
    "MissingFeatureError",
    "ModelOutputError",
    "NotABinaryClassifierError",
    "PositiveClassError",
    "RiskScorer",
    "ThresholdError",
    "load_model",
    "model_sha256",
    "pin_model",
    "pinned_sha256",
    "run_streaming_inference",
]

_RISK_COLUMNS = pd.Index(["risk_probability", "risk_label"])
_CLASSES = 2


class MissingFeatureError(ModelError):
    """A frame does not have exactly one column for each of the model's features."""

    def __init__(self, message: str, *, features: tuple[str, ...]) -> None:
        super().__init__(message)
        self.features = features


class ModelOutputError(ModelError):
    """`predict_proba` returned something other than two numbers per row."""


class RiskScorer:
    """A fitted binary classifier as a `process_fn`: features in, risk out.

    The risk is the probability of the positive class, and the label is 1 if the risk is at least `threshold`.
    `prepared` holds both, and the part that predicts (see prepared.py). `features` are the model's columns in its
    order, or None if it does not say. With a `history`, each call is taken to be all that is known about its patients;
    use `following` to score a stream. `path` is a phrase that names the scoring path, the model's arithmetic (see
    fast_path.py) or its predict_proba, and what ruled out a faster one.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        threshold: float | None = None,
        positive_class: object = None,
        features: Sequence[str] | None = None,
        card: Card | None = None,
    ) -> None:
        """Takes the arguments of `prepare`, and raises what it raises."""
        self.prepared = prepare(
            model, threshold=threshold, positive_class=positive_class, features=features, card=card
        )
        self.threshold = self.prepared.threshold
        self.history = self.prepared.history
        self._wanted = self.prepared.features
        self.features = self._wanted if self.history is None else tuple(self.history.feature_names_in_)
        self._columns = None if self._wanted is None else pd.Index(self._wanted)
        self._typed = Columns(self.prepared)
        self._seen: pd.Index | None = None
        self._fast_path: FastPath | None
        try:
            with threadpool_limits(limits=1):  # OpenMP's limit is per calling thread
                self._fast_path = FastPath(self.prepared, ask=self._asked_of, columns=self._typed)
            self.path = self._fast_path.how
        except NoFastPathError as error:
            self._fast_path = None
            self.path = f"the model's own predict_proba: {error}"

    @property
    def is_fast(self) -> bool:
        """Whether scoring uses something faster than predict_proba on a frame."""
        return self._fast_path is not None

    def __call__(self, X: pd.DataFrame) -> pd.DataFrame:
        """`risk_probability` (float64, NaN kept) and `risk_label` (Int64, <NA> for NaN) on the index of X.

        Raises MissingFeatureError or ModelOutputError; the model's own exceptions pass through.
        """
        return self._result(self.probability(X), X.index)

    def following(self) -> Callable[[pd.DataFrame], pd.DataFrame]:
        """The same for the chunks of one stream: a patient's history continues from chunk to chunk."""
        if self.history is None:
            return self
        past = self.history.start()
        return lambda X: self._result(self.behind_history(past.advance(X)), X.index)

    def probability(self, X: pd.DataFrame) -> Floats:
        """A call's probabilities alone: for a small chunk, building the result frame takes as long as scoring."""
        return self.behind_history(self._with_history(X))

    def behind_history(self, X: pd.DataFrame) -> Floats:
        """The same from the columns that the history returns; without a history, from any call's columns."""
        return self._probability(self._select(X))

    def asked(self, X: pd.DataFrame) -> Floats:
        """The same from the model's own predict_proba, whatever the path."""
        return self._asked(self._select(self._with_history(X)))

    def label(self, probability: Floats) -> pd.arrays.IntegerArray:
        """The label column of a call, from its probabilities."""
        label = (probability >= self.threshold).astype(np.int64)
        return pd.arrays.IntegerArray(label, np.isnan(probability))

    def labels(self, probability: Floats) -> list[int | None]:
        """The same as a list, with None for <NA>."""
        labels: list[int | None] = (probability >= self.threshold).astype(np.int64).tolist()
        for row in np.flatnonzero(np.isnan(probability)).tolist():
            labels[row] = None
        return labels

    def _with_history(self, X: pd.DataFrame) -> pd.DataFrame:
        return X if self.history is None else self.history.transform(X)

    def _result(self, probability: Floats, index: pd.Index) -> pd.DataFrame:
        result = pd.DataFrame({0: probability, 1: self.label(probability)}, index=index, copy=False)
        result.columns = _RISK_COLUMNS  # making an index of strings costs four times the rest of the frame
        return result

    def _select(self, X: pd.DataFrame) -> pd.DataFrame:
        """X with the model's columns in the model's order; X itself if it already has them so."""
        # Successive chunks have the same columns, although each slice is a new view.
        if self._wanted is None or X.columns.is_(self._seen):
            return X
        if X.columns.equals(self._columns):
            self._seen = X.columns
            return X
        positions = X.columns.get_indexer_for(self._columns)
        if len(positions) != len(self._wanted) or (positions < 0).any():
            raise _missing_features(self._wanted, X.columns)
        return X.take(positions, axis=1)

    def _probability(self, X: pd.DataFrame) -> Floats:
        if len(X) == 0:  # scikit-learn rejects an empty frame
            return np.empty(0)
        if self._fast_path is not None:
            values = self._typed.array(X)
            found = None if values is None else self._fast_path(values)
            if found is not None:
                return found
        return self._asked(X)

    def _asked_of(self, rows: Floats) -> Floats:
        return self._asked(self._typed.frame(rows, self._columns))

    def _asked(self, X: pd.DataFrame) -> Floats:
        X = self._typed(X)
        output = self.prepared.classifier.predict_proba(X if self.prepared.named else X.to_numpy())
        try:
            probabilities = np.asarray(output, dtype=np.float64)
        except (TypeError, ValueError):
            raise ModelOutputError("predict_proba must return an array of numbers") from None
        if probabilities.shape != (len(X), _CLASSES):
            raise ModelOutputError(
                f"predict_proba must return shape {(len(X), _CLASSES)}, not {probabilities.shape}"
            )
        risk: Floats = probabilities[:, self.prepared.positive]
        return risk.copy()  # a model may reuse its output buffer


def run_streaming_inference(
    X: pd.DataFrame,
    model: Classifier,
    chunk_size: int,
    *,
    threshold: float | None = None,
    positive_class: object = None,
    card: Card | None = None,
) -> pd.DataFrame:
    """Score X in chunks: `risk_probability` and `risk_label` on its index, sorted and stable.

    `threshold` None is that of the `card`, else the model's own, else 0.5. The risk is the probability of
    `positive_class`, else of the card's; neither is needed for {0, 1}, {False, True} and {-1, 1}. The chunk size never
    changes a score. Index labels which cannot be compared with each other (numbers with strings) stay in the order
    of X. A model with a PatientHistory wants X in log order. Raises what RiskScorer, its call and process_stream raise.
    """
    scorer = RiskScorer(model, threshold=threshold, positive_class=positive_class, card=card)
    risk, _ = process_stream(X, chunk_size, scorer.following())
    if len(X) == 0:
        risk = scorer(X)  # an empty frame has no chunk, so the columns come from here
    return _sorted(risk)


def _sorted(risk: pd.DataFrame) -> pd.DataFrame:
    if risk.index.is_monotonic_increasing:
        return risk
    try:
        return risk.sort_index(kind="stable")
    except TypeError:
        return risk


def _missing_features(features: tuple[str, ...], columns: pd.Index) -> MissingFeatureError:
    counts = {name: int((columns == name).sum()) for name in features}
    missing = tuple(name for name, count in counts.items() if count == 0)
    repeated = tuple(name for name, count in counts.items() if count > 1)
    problem, wrong = ("misses", missing) if missing else ("repeats", repeated)
    return MissingFeatureError(
        f"the frame {problem} columns that the model needs exactly once: {', '.join(map(str, wrong))}",
        features=wrong,
    )
