"""Recognises files that are not loadable models: says what each one is and what to do instead."""

import pickle
import re
import struct
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

_SAVE: Final = "and save that with joblib.dump"
_MADE_FROM: Final = "{}: save the original model with joblib.dump"
_NET: Final = f"{{}}: wrap the net in a classifier with predict_proba, {_SAVE}"

# By how the file begins.
_BEGINNINGS: Final[tuple[tuple[bytes, str], ...]] = (
    (rb'\s*\{\s*"learner"|\{L.{8}learner', f"XGBoost's own format: load it into an XGBClassifier {_SAVE}"),
    (rb"tree\nversion=", "LightGBM's own format, a bare booster: save the LGBMClassifier with joblib.dump"),
    (rb"CBM1", f"CatBoost's own format: load it into a CatBoostClassifier {_SAVE}"),
    (rb"\x08[\x01-\x20]\x12.{1,40}\x1a|\x08[\x01-\x20]\x12.(skl2onnx|onnx)", _MADE_FROM.format("ONNX")),
    (rb".{0,400}<PMML\b", _MADE_FROM.format("PMML")),
    (rb"\x89HDF\r\n", _NET.format("HDF5, as Keras writes")),
    (rb"version https://git-lfs", "a Git LFS pointer to the file: run git lfs pull"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd: decompress it and pin the result"),
    (rb"7z\xbc\xaf|Rar!", "an archive: extract the model and pin that"),
)  # fmt: skip
# The first bytes of pickles and of joblib's compression formats.
_PICKLE: Final = re.compile(rb"\x80[\x02-\x08]|ZF|x[\x01\x5e\x9c\xda]|\x1f\x8b|BZh|\]\x00|\xfd7zXZ")
_MISSING_NAME: Final = (
    r"Can't get attribute '(?P<name>[\w.]+)' on <module '(?P<module>[\w.]+)'",
    r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'",
)
_CUT_SHORT: Final = re.compile(r"truncated|exhausted|EOF|ended before")


class _Member(NamedTuple):
    """A file in a zip archive that identifies the archive."""

    name: str
    what: str


_MEMBERS: Final = (
    _Member("schema.json", "a skops file: rename it so that its name ends in .skops"),
    _Member(
        "data.pkl",
        _NET.format("PyTorch's"),
    ),
    _Member("", "a zip archive: extract the model and pin that"),
)


def foreign(content: bytes, *, skops: bool) -> str | None:
    """What a file is that cannot be a loadable model, and the remedy; None if it may be one."""
    if not content:
        return "empty: save the model again"
    for beginning, what in _BEGINNINGS:
        if re.match(beginning, content, re.DOTALL):
            return what
    if content.startswith(b"PK") and not skops:
        return next(what for name, what in _MEMBERS if any(one.endswith(name) for one in _members(content)))
    return None


def folder(path: Path) -> str:
    """What to do if `path` is a folder instead of a file."""
    description = path / "MLmodel"
    if not description.is_file():
        return "is a folder: name the model file in it"
    found = re.search(
        r"^\s*(?:pickled_model|model_path): *(\S+)", description.read_text("utf-8", "replace"), re.MULTILINE
    )
    inside = path / (found[1] if found else "model.pkl")
    return f"is an MLflow folder: pin and use the model file in it, {inside}"


def complaint(error: Exception, content: bytes, *, how: str) -> str:
    """Why a model's bytes could not be loaded, and the remedy, without quoting the content."""
    generic = (
        f"cannot be loaded ({type(error).__name__}): save it with {how}, and install the packages it uses on "
        "this machine"
    )
    if not (_PICKLE.match(content) or content.startswith(b"PK")):
        return generic  # names in other formats' errors are not reliable
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"needs the Python module {error.name}, which is not installed: install its package or, "
            "if the module is the model's own, give its folder with --code"
        )
    for form in _MISSING_NAME if isinstance(error, AttributeError) else ():
        if found := re.match(form, str(error)):
            return _missing_name(found["name"], found["module"])
    if _is_of_a_short_file(error):
        return "is truncated: copy or save it again"
    return generic


def _is_of_a_short_file(error: Exception) -> bool:
    told = isinstance(error, pickle.UnpicklingError | ValueError) and _CUT_SHORT.search(str(error))
    return isinstance(error, EOFError | struct.error) or bool(told)


def _missing_name(name: str, module: str) -> str:
    if module.endswith("__main__"):  # under python -m vitalstream it is vitalstream.__main__
        return (
            f"needs {name}, which was defined in the script or notebook that saved the model: move it into a module, "
            "save the model again, and give the module's folder with --code"
        )
    return (
        f"needs {name} from the module {module}, which the installed {module} does not have: "
        "install the version that the model was saved with, or give the folder of the model's own modules with --code"
    )


def _members(content: bytes) -> list[str]:
    try:
        return [*zipfile.ZipFile(BytesIO(content)).namelist(), ""]
    except zipfile.BadZipFile:
        return [""]
