"""skops files: loading them runs no code and creates only types that are trusted by name."""

import builtins
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sklearn
from skops import io as skops

from real_time import (
    Classifier,
    ModelHashError,
    ModelLoadError,
    ModelNotPinnedError,
    ModelTypesError,
    ModelVersionError,
    load_model,
    pin_model,
)
from tests.real_time.conftest import HandWritten

MADE: list["Touches"] = []


class Touches:
    """Records that it was created."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        MADE.append(self)


def saved(model: Any, tmp_path: Path) -> Path:
    path = tmp_path / "risk.skops"
    skops.dump(model, path)
    pin_model(path)
    return path


@pytest.mark.parametrize("kind", ["logistic", "pipeline", "forest", "boosting"])
def test_a_model_gives_the_same_scores_once_its_types_are_trusted(
    kind: str, tmp_path: Path, models: dict[str, Classifier], patients: pd.DataFrame
) -> None:
    path = saved(models[kind], tmp_path)
    trusted: tuple[str, ...] = ()
    try:
        load_model(path)
    except ModelTypesError as error:
        trusted = error.types  # what a person reads and confirms
    loaded = load_model(path, trusted=trusted)
    assert (loaded.predict_proba(patients) == models[kind].predict_proba(patients)).all()


def test_an_untrusted_type_is_named_and_not_created(tmp_path: Path) -> None:
    touches = Touches()
    touches.__dict__["a"] = 1
    path = saved([touches, HandWritten()], tmp_path)
    names = ("tests.real_time.conftest.HandWritten", "tests.real_time.test_skops.Touches")
    with pytest.raises(ModelTypesError, match=f"--trusted-types {','.join(names)}") as caught:
        load_model(path)
    assert caught.value.types == names
    with pytest.raises(ModelTypesError) as caught:
        load_model(path, trusted=[names[0], "sklearn.tree._tree.Tree"])
    assert caught.value.types == names[1:]
    assert not MADE
    load_model(path, trusted=names)
    assert MADE


def test_a_skops_file_is_pinned_like_any_other(tmp_path: Path, models: dict[str, Classifier]) -> None:
    path = tmp_path / "risk.skops"
    skops.dump(models["logistic"], path)
    with pytest.raises(ModelNotPinnedError):
        load_model(path)
    pin_model(path)
    skops.dump(models["pipeline"], path)
    with pytest.raises(ModelHashError):
        load_model(path)


def test_a_pickle_named_skops_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "risk.skops"
    path.write_bytes(b"\x80\x04N.")
    pin_model(path)
    with pytest.raises(
        ModelLoadError, match=r"cannot be loaded \(BadZipFile\): save it with skops\.io\.dump"
    ):
        load_model(path)


def test_a_model_from_another_version_of_scikit_learn_is_refused(
    tmp_path: Path, models: dict[str, Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", "1.2.0")
        path = saved(models["logistic"], tmp_path)
    with pytest.raises(
        ModelVersionError, match=f"fitted with scikit-learn 1.2.0 but {sklearn.__version__} is"
    ):
        load_model(path)


def test_without_skops_the_error_says_how_to_install_it(
    tmp_path: Path, models: dict[str, Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(models["logistic"], tmp_path)
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "skops":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModelLoadError, match=r"pip install 'skops>=0\.12'"):
        load_model(path)
