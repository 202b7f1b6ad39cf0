"""Checks that published scores are those of the documented core, computed offline."""

import numpy as np

from broker.settings import Settings
from real_time.inference import RiskScorer, load_model, run_streaming_inference
from schemas.ranges import RangeCheck, load_ranges
from tests.consumer.accounts import Accounts, offline_frame

OFFLINE_CHUNK = 1000  # unlike any chunk size of a worker


def require_offline_scores(found: Accounts, settings: Settings, *, ulp: int) -> None:
    """Fail unless every result is what offline scoring gives for its message; bit for bit if `ulp` is 0."""
    assert settings.model is not None
    model = load_model(settings.model)
    features = list(RiskScorer(model).features or ())
    X = offline_frame(found, features)
    values = X.to_numpy(copy=True)
    implausible = RangeCheck(features, load_ranges(settings.ranges, features)).clear(values)
    X[:] = values
    expected = run_streaming_inference(X, model, OFFLINE_CHUNK, threshold=settings.threshold)

    published = [found.by_position[position] for position in X.index]
    probabilities = np.array([one.risk_probability for one in published], dtype=float)
    offline = expected["risk_probability"].to_numpy()
    # distance in ulp, for numbers of the same sign
    apart = np.abs(probabilities.view(np.int64) - offline.view(np.int64))
    assert apart.max() <= ulp, f"{(apart > ulp).sum()} scores differ by up to {apart.max()} ulp"
    assert np.unique(offline).size > len(offline) // 100, "the model gives nearly all rows the same score"
    near = np.isclose(offline, found.by_position[X.index[0]].threshold, rtol=0, atol=1e-12 if ulp else 0)
    labels = np.array([one.risk_label for one in published])
    assert ((labels == expected["risk_label"].to_numpy(int)) | near).all()
    assert set(labels) == {0, 1}
    assert [one.implausible for one in published] == implausible
    assert [one.features_present for one in published] == X.notna().sum(axis=1).tolist()
    assert not any(one.no_input for one in published)
