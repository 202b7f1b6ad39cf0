"""A model file as a topic is scored with it: what is refused here is refused by every command, and nothing else is."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os import fspath

from real_time.inference import RiskScorer
from real_time.model_file import ModelError, ModelPath, ModelVersionWarning, load_model, pinned_sha256
from real_time.probing import require_independent_rows


class UnnamedFeaturesError(ModelError):
    """The model does not say which features it wants, so no message can be read for it."""


@dataclass(frozen=True, slots=True)
class Model:
    """A verified model: its scorer, its features in order and the sha256 of its file."""

    scorer: RiskScorer
    features: tuple[str, ...]
    sha256: str
    cautions: tuple[str, ...] = ()
    """What an operator should know of it, though it can be used; a sentence each, without a full stop."""


def load_usable(
    path: ModelPath,
    *,
    sha256: str | None = None,
    trusted: Collection[str] = (),
    threshold: float | None = None,
    positive_class: str | None = None,
    features: Sequence[str] | None = None,
    code: ModelPath | None = None,
) -> Model:
    """The model in `path` if a worker can score a topic with it. Takes what `load_model` and RiskScorer take.

    Raises a subclass of ModelError if it can't.
    """
    sha256 = pinned_sha256(path) if sha256 is None else sha256
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ModelVersionWarning)
        model = load_model(path, sha256=sha256, trusted=trusted, code=code)
    scorer = RiskScorer(model, threshold=threshold, positive_class=positive_class, features=features)
    if scorer.features is None:
        raise UnnamedFeaturesError(
            f"model file {fspath(path)} does not say which features it wants: "
            "say --features with their names in order, or fit the model on a DataFrame"
        )
    require_independent_rows(scorer, scorer.features)
    cautions = [str(one.message) for one in caught if issubclass(one.category, ModelVersionWarning)]
    return Model(scorer, scorer.features, sha256, tuple(cautions))
