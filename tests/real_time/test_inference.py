"""Scores are the model's own, whatever the chunk size, index, dtypes and column order."""

import hashlib
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from real_time import (
    Classifier,
    MissingFeatureError,
    ModelError,
    ModelFileError,
    ModelHashError,
    ModelLoadError,
    ModelNotPinnedError,
    ModelOutputError,
    ModelVersionError,
    ModelVersionWarning,
    NotABinaryClassifierError,
    RiskScorer,
    ThresholdError,
    load_model,
    model_file,
    model_sha256,
    pin_model,
    pinned_sha256,
    process_stream,
    run_streaming_inference,
)
from real_time.usable import load_usable

from .conftest import FEATURES, HandWritten, frames

MODELS = ["logistic", "pipeline", "boosting", "forest", "calibrated", "hand-written"]
# BLAS adds a row's products in a different order for few rows than for many. That moves the log-odds by a few
# ulp of the largest term, and a small probability by the same relative amount.
ROUNDING = {"logistic": 1e-13, "pipeline": 1e-13}


class Fixed:
    """A model that returns a fixed output."""

    def __init__(self, output: Any, classes: Any = (0, 1)) -> None:
        self.output = output
        self.classes_ = classes

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return self.output


def risk(*probabilities: float) -> Fixed:
    return Fixed(np.column_stack([np.zeros(len(probabilities)), probabilities]))


def as_model(output: Any) -> Classifier:
    return Fixed(output)


# --- chunking never changes a score ---------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_chunking_gives_the_scores_of_one_call(
    name: str, models: dict[str, Classifier], data: st.DataObject
) -> None:
    X = data.draw(frames(gaps=name != "logistic"))
    chunk_size = data.draw(st.integers(1, len(X) + 2))
    result = run_streaming_inference(X, models[name], chunk_size)

    order = sorted(range(len(X)), key=lambda row: X.index[row])  # stable
    assert result.index.equals(X.index[order])
    assert result.index.names == X.index.names
    whole = models[name].predict_proba(X[list(FEATURES)])[:, 1] if len(X) else np.empty(0)
    streamed = result["risk_probability"].to_numpy()
    np.testing.assert_allclose(streamed, whole[order], rtol=ROUNDING.get(name, 0), atol=0)
    expected = [None if np.isnan(p) else int(p >= 0.5) for p in streamed]
    assert [None if pd.isna(label) else label for label in result["risk_label"]] == expected
    assert list(result.dtypes.astype(str)) == ["float64", "Int64"]


@pytest.mark.parametrize("chunk_size", [1, 7, 50, 1000])
def test_the_worker_gives_the_same_scores_as_the_documented_call(
    chunk_size: int, model: Classifier, patients: pd.DataFrame
) -> None:
    scored, _ = process_stream(patients, len(patients), RiskScorer(model))
    pd.testing.assert_frame_equal(
        run_streaming_inference(patients, model, chunk_size), scored, check_exact=True
    )


def test_rows_with_unorderable_labels_keep_their_order() -> None:
    X = pd.DataFrame({"heart_rate": [64.0, 128.0, 32.0]}, index=pd.Index(["b", 1, "a"], dtype=object))
    assert run_streaming_inference(X, HandWritten(), 2)["risk_probability"].to_dict() == {
        "b": 0.25,
        1: 0.5,
        "a": 0.125,
    }


def test_scores_do_not_share_a_buffer_that_the_model_reuses() -> None:
    class Reuses(Fixed):
        def predict_proba(self, X: pd.DataFrame) -> Any:
            self.output[:] = X["p"].to_numpy()[:, None]
            return self.output

    X = pd.DataFrame({"p": [0.1, 0.2, 0.3]})
    scores = run_streaming_inference(X, Reuses(np.empty((1, 2))), 1)["risk_probability"]
    assert scores.tolist() == [0.1, 0.2, 0.3]


# --- labels ---------------------------------------------------------------------------------------


def test_a_probability_at_the_threshold_is_labelled_1_and_nan_has_no_label() -> None:
    X = pd.DataFrame({"x": range(4)})
    scored = RiskScorer(risk(0.3, np.nextafter(0.3, 0), np.nan, 1.0), threshold=0.3)(X)
    assert scored["risk_label"].tolist() == [1, 0, pd.NA, 1]
    assert np.isnan(scored["risk_probability"][2])


def test_the_threshold_is_a_keyword_of_the_documented_call() -> None:
    X = pd.DataFrame({"heart_rate": [64.0, 128.0]})
    labels = [
        run_streaming_inference(X, HandWritten(), 2, threshold=t)["risk_label"].tolist() for t in (0, 0.3, 1)
    ]
    assert labels == [[1, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.5", True])
def test_a_threshold_outside_zero_to_one_is_refused(threshold: Any) -> None:
    with pytest.raises(ThresholdError, match="threshold"):
        RiskScorer(HandWritten(), threshold=threshold)


# --- features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_features_are_found_through_every_wrapper(name: str, models: dict[str, Classifier]) -> None:
    assert RiskScorer(models[name]).features == (None if name == "hand-written" else FEATURES)


def test_features_are_found_behind_a_passthrough_step(models: dict[str, Classifier]) -> None:
    wrapped = Pipeline([("nothing", "passthrough"), ("model", models["forest"])])
    assert RiskScorer(wrapped).features == FEATURES


def test_features_are_found_in_a_calibrated_model_without_names_of_its_own(models: dict[str, Any]) -> None:
    calibrated = CalibratedClassifierCV()
    calibrated.classes_ = models["calibrated"].classes_
    calibrated.calibrated_classifiers_ = models["calibrated"].calibrated_classifiers_
    assert RiskScorer(calibrated).features == FEATURES


def test_a_missing_column_is_named(model: Classifier, patients: pd.DataFrame) -> None:
    for X in (patients.drop(columns="spo2"), patients.drop(columns="spo2").head(0)):
        with pytest.raises(MissingFeatureError, match=r"misses .* spo2$") as caught:
            run_streaming_inference(X, model, 100)
        assert caught.value.features == ("spo2",)


def test_a_repeated_column_is_named(model: Classifier, patients: pd.DataFrame) -> None:
    X = pd.concat([patients, patients[["age"]] * 2], axis=1)
    with pytest.raises(MissingFeatureError, match=r"repeats .* age$"):
        RiskScorer(model)(X)


def test_a_frame_with_fitting_columns_is_passed_on_unchanged(patients: pd.DataFrame) -> None:
    class Remembers(Fixed):
        feature_names_in_ = np.array(FEATURES)

        def predict_proba(self, X: pd.DataFrame) -> Any:
            self.seen, _ = X, X.columns  # fails for an array
            return np.zeros((len(X), 2))

    model = Remembers(None)
    RiskScorer(model)(patients)
    assert model.seen is patients
    RiskScorer(model)(patients[["spo2", "age", "heart_rate", "on_oxygen"]])
    assert model.seen.equals(patients)


# --- models that are refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (object(), "no predict_proba"),
        (LinearSVC(), "no predict_proba"),
        (LogisticRegression(), "fit it"),
        (Pipeline([("model", LogisticRegression())]), "fit it"),
        (Fixed(None, classes=[0]), "has 1 classes, but risk is yes or no"),
        (Fixed(None, classes=["a", "b", "c"]), "has 3 classes, but risk is yes or no"),
        (
            Fixed(None, classes=[np.array([0, 1]), np.array([0, 1])]),
            "several outputs: fit it to one column of two classes",
        ),
    ],
)
def test_only_a_fitted_binary_classifier_is_accepted(model: Any, problem: str) -> None:
    with pytest.raises(NotABinaryClassifierError, match=problem):
        RiskScorer(model)


def test_a_multilabel_classifier_is_refused(patients: pd.DataFrame) -> None:
    both = RandomForestClassifier(n_estimators=2).fit(patients, np.tile([[0, 1], [1, 0]], (25, 1)))
    with pytest.raises(NotABinaryClassifierError):
        RiskScorer(both)


@pytest.mark.parametrize(
    "output",
    [np.zeros((2, 2)), np.zeros((3, 1)), np.zeros((3, 3)), np.zeros(3), [["low", "high"]] * 3, None, 0.5],
    ids=["rows", "one column", "three columns", "one dimension", "words", "nothing", "a number"],
)
def test_output_of_the_wrong_shape_is_a_model_error(output: Any) -> None:
    with pytest.raises(ModelOutputError, match="predict_proba must return"):
        RiskScorer(as_model(output))(pd.DataFrame({"x": range(3)}))


def test_exceptions_of_the_model_are_not_wrapped() -> None:
    class Fails(Fixed):
        def predict_proba(self, X: pd.DataFrame) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        RiskScorer(Fails(None))(pd.DataFrame({"x": range(3)}))


# --- model files ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, models: dict[str, Classifier]) -> Path:
    path = tmp_path / "risk.joblib"
    joblib.dump(models["logistic"], path)
    return path


class Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Complains:
    def __reduce__(self) -> Any:
        return _complain, ()


def _complain() -> None:
    raise RuntimeError("patient 4711")


@pytest.mark.parametrize("how", ["joblib", "compressed", "pickle"])
def test_a_pinned_model_gives_the_same_scores(
    how: str, tmp_path: Path, models: dict[str, Classifier], patients: pd.DataFrame
) -> None:
    path = tmp_path / "risk_predictor.pkl"
    if how == "pickle":
        path.write_bytes(pickle.dumps(models["forest"]))
    else:
        joblib.dump(models["forest"], path, compress=3 if how == "compressed" else 0)
    digest = pin_model(path)
    assert (
        digest == model_sha256(path) == pinned_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    )
    for loaded in (load_model(path), load_model(str(path), sha256=digest.upper())):
        assert (loaded.predict_proba(patients) == models["forest"].predict_proba(patients)).all()


def test_a_pin_has_the_format_of_sha256sum(saved: Path) -> None:
    digest = pin_model(saved)
    assert Path(f"{saved}.sha256").read_text() == f"{digest}  risk.joblib\n"


@pytest.mark.parametrize(
    "form", ["{0}", "{0}\n", "{0}  risk.joblib\n", "{0} *risk.joblib\r\n", "\ufeff{0}\r\n"]
)
def test_a_pin_may_be_only_the_hash(form: str, saved: Path) -> None:
    Path(f"{saved}.sha256").write_bytes(form.format(model_sha256(saved).upper()).encode())
    load_model(saved)


def test_without_a_pin_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "risk.pkl"
    path.write_bytes(pickle.dumps(Touches(tmp_path / "ran")))
    with pytest.raises(ModelNotPinnedError, match=f"vitalstream model pin {path}"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


def test_bytes_other_than_the_pinned_ones_are_not_loaded(saved: Path) -> None:
    pin_model(saved)
    saved.write_bytes(pickle.dumps(Touches(saved.with_name("ran"))))
    with pytest.raises(ModelHashError, match="not the file that was pinned"):
        load_model(saved)
    assert not saved.with_name("ran").exists()


def test_an_argument_overrides_the_pin_next_to_the_file(saved: Path) -> None:
    pin_model(saved)
    with pytest.raises(ModelHashError):
        load_model(saved, sha256="0" * 64)


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "0" * 63, "0" * 65])
def test_an_invalid_hash_is_refused(digest: str, saved: Path) -> None:
    with pytest.raises(ModelHashError, match="64 hexadecimal"):
        load_model(saved, sha256=digest)
    Path(f"{saved}.sha256").write_text(f"{digest}  risk.joblib\n")
    with pytest.raises(ModelHashError, match=r"64 hexadecimal digits: .* run `vitalstream model pin"):
        load_model(saved)


def test_the_bytes_loaded_are_the_bytes_hashed(
    saved: Path, models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin_model(saved)

    def hash_while_somebody_swaps_the_file(content: bytes) -> Any:
        saved.write_bytes(pickle.dumps(Touches(saved.with_name("ran"))))
        return hashlib.sha256(content)

    monkeypatch.setattr(model_file, "hashlib", SimpleNamespace(sha256=hash_while_somebody_swaps_the_file))
    assert (load_model(saved).coef_ == models["logistic"].coef_).all()
    assert not saved.with_name("ran").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for call in (load_model, pin_model, model_sha256, pinned_sha256):
        with pytest.raises(ModelFileError, match=r"cannot read .*absent.pkl: No such file"):
            call(tmp_path / "absent.pkl")


def test_a_model_from_another_version_of_scikit_learn_is_refused(
    saved: Path, models: dict[str, Classifier]
) -> None:
    installed = sklearn.__version__
    older = "0" + installed[1:]
    saved.write_bytes(pickle.dumps(models["pipeline"]).replace(installed.encode(), older.encode()))
    pin_model(saved)
    with pytest.raises(ModelVersionError, match=f"fitted with scikit-learn {older} .* scikit-learn=={older}"):
        load_model(saved)


def test_a_model_from_another_patch_release_of_scikit_learn_is_a_warning(
    saved: Path, models: dict[str, Classifier]
) -> None:
    major, minor, _ = sklearn.__version__.split(".")
    near = f"{major}.{minor}.999"[: len(sklearn.__version__)]
    saved.write_bytes(pickle.dumps(models["pipeline"]).replace(sklearn.__version__.encode(), near.encode()))
    pin_model(saved)
    with pytest.warns(
        ModelVersionWarning, match=f"fitted with scikit-learn {near} but {sklearn.__version__} is"
    ):
        load_model(saved)
    (caution,) = load_usable(saved).cautions
    assert caution.endswith(f"scikit-learn {near} but {sklearn.__version__} is installed")


@pytest.mark.parametrize("content", [b"not a pickle", pickle.dumps(Complains())])
def test_a_file_that_is_not_a_model_is_refused_without_quoting_it(content: bytes, saved: Path) -> None:
    saved.write_bytes(content)
    pin_model(saved)
    with pytest.raises(ModelLoadError, match="cannot be loaded") as caught:
        load_model(saved)
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_all_model_errors_share_one_root() -> None:
    kinds = [ModelOutputError, MissingFeatureError, NotABinaryClassifierError, ModelHashError, ModelFileError]
    assert all(issubclass(kind, ModelError) for kind in [*kinds, ModelNotPinnedError, ModelVersionError])
    assert issubclass(ModelError, ValueError)
