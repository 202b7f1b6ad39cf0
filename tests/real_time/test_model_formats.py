"""Files that people mistake for a model's: one sentence says what each is and what to do."""

import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import pytest
from skops import io as skops

from real_time import ModelError, load_model, model_sha256, pin_model, pinned_sha256
from real_time.model_formats import complaint
from real_time.usable import load_usable

from .kinds import FEATURES, fitted


def load(path: Path) -> Any:
    return load_usable(path, sha256=model_sha256(path))


def xgboost_json(path: Path) -> None:
    fitted("XGBoost").get_booster().save_model(path.with_suffix(".json"))
    path.write_bytes(path.with_suffix(".json").read_bytes())


def xgboost_ubj(path: Path) -> None:
    fitted("XGBoost").save_model(path.with_suffix(".ubj"))
    path.write_bytes(path.with_suffix(".ubj").read_bytes())


def lightgbm_text(path: Path) -> None:
    fitted("LightGBM").booster_.save_model(path)


def catboost_as(layout: str) -> Callable[[Path], None]:
    return lambda path: fitted("CatBoost").save_model(str(path), format=layout)


def bare_booster(path: Path) -> None:
    joblib.dump(fitted("XGBoost").get_booster(), path)


def with_company(path: Path) -> None:
    joblib.dump({"model": fitted("LR"), "features": FEATURES}, path)


def half_of(*, compress: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        joblib.dump(fitted("RF in threads"), path, compress=compress)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


def skops_under_another_name(path: Path) -> None:
    path.write_bytes(skops.dumps(fitted("LR")))


def holding(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "XGBoost json": (xgboost_json, "XGBoost's own format: load it into an XGBClassifier"),
    "XGBoost ubj": (xgboost_ubj, "XGBoost's own format: load it into an XGBClassifier"),
    "LightGBM text": (lightgbm_text, "LightGBM's own format, a bare booster"),
    "CatBoost cbm": (catboost_as("cbm"), "CatBoost's own format: load it into a CatBoostClassifier"),
    "ONNX": (catboost_as("onnx"), "is ONNX: save the original model"),
    "PMML": (catboost_as("pmml"), "is PMML: save the original model"),
    "bare booster": (bare_booster, "a bare Booster has no predict_proba: save the XGBClassifier"),
    "dict": (with_company, "a dict is not a model: save the fitted classifier alone"),
    "half": (half_of(compress=0), "is truncated: copy or save it again"),
    "half of a compressed one": (half_of(compress=3), "is truncated: copy or save it again"),
    "skops": (skops_under_another_name, r"a skops file: rename it so that its name ends in \.skops"),
    "empty": (holding(b""), "is empty: save the model again"),
    "Git LFS": (holding(b"version https://git-lfs.github.com/spec/v1\noid"), "run git lfs pull"),
    "zstd": (holding(b"\x28\xb5\x2f\xfd\x04"), "compressed with zstd: decompress it"),
    "text": (holding(b"canary"), r"cannot be loaded \(\w+\): save it with joblib\.dump"),
}


@pytest.mark.parametrize("name", FILES)
def test_an_unsuitable_file_is_explained_in_one_sentence(name: str, tmp_path: Path) -> None:
    make, told = FILES[name]
    path = tmp_path / "risk.model"
    make(path)
    with pytest.raises(ModelError, match=told) as refused:
        load(path)
    assert "\n" not in str(refused.value)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3)])
def test_a_model_compressed_by_joblib_is_loaded(compress: Any, tmp_path: Path) -> None:
    joblib.dump(fitted("LR"), tmp_path / "m", compress=compress)
    load(tmp_path / "m")


def test_for_an_mlflow_folder_the_file_to_pin_is_named(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: net/model.pkl\n")
    for call in (load_model, pin_model, model_sha256, pinned_sha256):
        with pytest.raises(ModelError, match=rf"MLflow folder: .* {re.escape(str(tmp_path))}/net/model\.pkl"):
            call(tmp_path)
    (tmp_path / "MLmodel").unlink()
    with pytest.raises(ModelError, match="is a folder: name the model file in it"):
        load(tmp_path)


CODE = """
class Own:
    classes_ = (0, 1)
    feature_names_in_ = ("a",)

    def predict_proba(self, X):
        return [[0.5, 0.5]] * len(X)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose class is in a module that can't be imported; the module's file is in `code`, next to it."""
    module = ModuleType("hospital_models")
    exec(CODE, module.__dict__)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, module.__name__, module)
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(module.Own()))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "hospital_models.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path / "m.pkl"


def test_a_missing_module_is_named_and_can_be_given_by_code(own: Path) -> None:
    with pytest.raises(ModelError, match=r"needs the Python module hospital_models, .*--code"):
        load(own)
    with pytest.raises(ModelError, match=r"--code \S+nowhere is not a folder"):
        load_usable(own, sha256=model_sha256(own), code=own.with_name("nowhere"))
    try:
        assert load_usable(own, sha256=model_sha256(own), code=own.with_name("code")).features == ("a",)
    finally:
        sys.modules.pop("hospital_models", None)


def test_a_class_defined_in_a_notebook_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x03c__main__\nMyModel\n)\x81.")
    with pytest.raises(
        ModelError, match=r"needs MyModel, which was defined in the script or notebook .* --code"
    ):
        load(path)


def test_main_is_named_as_the_module_that_was_started() -> None:
    """With `python -m vitalstream`, the __main__ that a pickle refers to is shown as vitalstream.__main__."""
    error = AttributeError("Can't get attribute 'MyModel' on <module 'vitalstream.__main__' from 'x.py'>")
    assert complaint(error, b"\x80\x04", how="joblib.dump").startswith(
        "needs MyModel, which was defined in the script or notebook"
    )


def test_a_name_missing_from_the_installed_module_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x03csklearn.linear_model\nRiskRegression\n)\x81.")
    with pytest.raises(ModelError, match=r"needs RiskRegression from the module sklearn\.linear_model"):
        load(path)


def test_a_pickle_from_an_older_xgboost_is_a_caution(tmp_path: Path) -> None:
    path, version = tmp_path / "m.joblib", b"version[#L" + bytes(7) + b"\x03"
    joblib.dump(fitted("XGBoost"), path)
    path.write_bytes(re.sub(re.escape(version) + b"i.i.i.", version + b"i\x02i\x01i\x04", path.read_bytes()))
    (caution,) = load_usable(path, sha256=model_sha256(path)).cautions
    assert caution.endswith("was saved by an older XGBoost than the one installed")
