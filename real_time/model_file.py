"""Model files. Loading a pickle runs code, so it is loaded only if its bytes have the pinned SHA-256.

A skops file runs no code but can create objects of any type. It is pinned too, and loaded only if all its types are
trusted by skops or listed.
"""

import hashlib
import hmac
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection
from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

import joblib
from sklearn.exceptions import InconsistentVersionWarning

from real_time.model_formats import complaint, folder, foreign

ModelPath: TypeAlias = str | PathLike[str]

SKOPS = ".skops"
_OLD_XGBOOST = "older version of XGBoost"


class ModelError(ValueError):
    """Base of all errors about a model or its file."""


class ModelFileError(ModelError):
    """A model file or its pin cannot be read or written."""


class ModelNotPinnedError(ModelError):
    """A model file has no pinned hash."""


class ModelHashError(ModelError):
    """A model file's hash differs from the pinned one, or the pinned one is malformed."""


class ModelLoadError(ModelError):
    """The bytes match the pin but cannot be loaded as a model."""


class ModelTypesError(ModelLoadError):
    """A skops file contains untrusted types; `types` are their names."""

    def __init__(self, message: str, *, types: tuple[str, ...]) -> None:
        super().__init__(message)
        self.types = types


class ModelVersionError(ModelLoadError):
    """A model was fitted with a different minor version of scikit-learn from the installed one."""


class ModelVersionWarning(UserWarning):
    """A model was fitted with a different patch version of scikit-learn from the installed one."""


def load_model(
    path: ModelPath,
    *,
    sha256: str | None = None,
    trusted: Collection[str] = (),
    code: ModelPath | None = None,
) -> Any:
    """Load the model in the joblib, pickle or skops file `path`, whose bytes must have the hash `sha256`.

    Without `sha256` the hash comes from `<path>.sha256`, as written by `pin_model` or sha256sum. The loaded bytes are
    the very bytes that were hashed. A file is read as skops if its name ends in .skops; it may contain only types that
    skops trusts or that `trusted` lists by full name. `code` is a folder with the model's own Python modules; it stays
    importable in this process. Raises a subclass of ModelError; warns with ModelVersionWarning.
    """
    content = _read(path)
    expected = pinned_sha256(path) if sha256 is None else _checked_sha256(sha256, "sha256")
    actual = hashlib.sha256(content).hexdigest()
    if not hmac.compare_digest(actual, expected):
        raise ModelHashError(
            f"model file {fspath(path)} has the SHA-256 {actual}, not the pinned {expected}: "
            "it is not the file that was pinned"
        )
    skops = fspath(path).endswith(SKOPS)
    if what := foreign(content, skops=skops):
        raise ModelLoadError(f"model file {fspath(path)} is {what}")
    _let_import_from(code)
    if skops:
        return _loaded(path, lambda: _skops_loads(content, path, trusted), content)
    return _loaded(path, lambda: joblib.load(BytesIO(content)), content)


def pin_model(path: ModelPath, *, sha256: str | None = None) -> str:
    """Write the SHA-256 of the file `path` to `<path>.sha256`, in sha256sum's format, and return it.

    If the bytes were read earlier, pass their hash as `sha256`: the file may have changed since.
    """
    digest = model_sha256(path) if sha256 is None else _checked_sha256(sha256, "sha256")
    write_file(pin_path(path), f"{digest}  {Path(path).name}\n")
    return digest


def write_file(path: Path, text: str) -> None:
    """Write text to a file atomically: a reader sees the old or the new text. Raises ModelFileError."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ModelFileError(f"cannot write {path}: {error.strerror}") from None


def model_sha256(path: ModelPath) -> str:
    """The current SHA-256 of the file `path`, in lower-case hexadecimal."""
    return hashlib.sha256(_read(path)).hexdigest()


def pinned_sha256(path: ModelPath) -> str:
    """The SHA-256 that `<path>.sha256` gives for the file `path`, in lower-case hexadecimal.

    Raises ModelNotPinnedError if there is no such file, ModelHashError if it contains no hash.
    """
    pin = pin_path(path)
    if not pin.exists():
        _read(path)  # a missing model file matters more than its missing pin
        raise ModelNotPinnedError(
            f"model file {fspath(path)} is not pinned: "
            f"if you trust it, run `vitalstream model pin {fspath(path)}`"
        )
    words = _read(pin).decode("utf-8-sig", errors="replace").split(maxsplit=1)
    try:
        return _checked_sha256(words[0] if words else "", str(pin))
    except ModelHashError as error:
        raise ModelHashError(
            f"{error}: if you trust the model file, run `vitalstream model pin {fspath(path)}`"
        ) from None


def pin_path(path: ModelPath) -> Path:
    """The path of the pin of model file `path`."""
    return Path(f"{fspath(path)}.sha256")


def _read(path: ModelPath) -> bytes:
    try:
        return Path(path).read_bytes()
    except IsADirectoryError:
        raise ModelFileError(f"{fspath(path)} {folder(Path(path))}") from None
    except OSError as error:
        raise ModelFileError(
            f"cannot read model file {fspath(path)}: {error.strerror}; check the path"
        ) from None


def _checked_sha256(digest: str, source: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise ModelHashError(f"{source} must be a SHA-256 of 64 hexadecimal digits")
    return digest.lower()


def _let_import_from(code: ModelPath | None) -> None:
    if code is None:
        return
    if not Path(code).is_dir():
        raise ModelFileError(
            f"--code {fspath(code)} is not a folder: name the folder with the model's own modules"
        )
    found = str(Path(code).resolve())
    if found not in sys.path:
        sys.path.append(found)  # at the end, so that it cannot shadow installed packages


def _look_at(caught: list[warnings.WarningMessage], path: ModelPath) -> None:
    """Re-issue warnings from loading a model, with version warnings once each and in our own words.

    Raises ModelVersionError for a different minor version of scikit-learn.
    """
    messages = [one.message for one in caught]
    for message in messages:
        if isinstance(message, InconsistentVersionWarning):
            _require_near_version(path, message)
            break
    if any(_OLD_XGBOOST in str(message) for message in messages):
        differs = f"model file {fspath(path)} was saved by an older XGBoost than the one installed"
        warnings.warn(differs, ModelVersionWarning, stacklevel=4)
    for message in messages:
        if not isinstance(message, InconsistentVersionWarning) and _OLD_XGBOOST not in str(message):
            warnings.warn(message, stacklevel=4)


def _require_near_version(path: ModelPath, warning: InconsistentVersionWarning) -> None:
    fitted, installed = warning.original_sklearn_version, warning.current_sklearn_version
    differs = f"model file {fspath(path)} was fitted with scikit-learn {fitted} but {installed} is installed"
    if fitted.split(".")[:2] != installed.split(".")[:2]:
        raise ModelVersionError(f"{differs}: refit it with {installed}, or install scikit-learn=={fitted}")
    warnings.warn(differs, ModelVersionWarning, stacklevel=5)


def _loaded(path: ModelPath, load: Callable[[], Any], content: bytes) -> Any:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = load()
    except ModelLoadError:
        raise
    except Exception as error:  # unpickling may raise anything, and the message may quote the content
        how = "skops.io.dump" if fspath(path).endswith(SKOPS) else "joblib.dump"
        raise ModelLoadError(f"model file {fspath(path)} {complaint(error, content, how=how)}") from None
    _look_at(caught, path)
    return model


def _skops_loads(content: bytes, path: ModelPath, trusted: Collection[str]) -> Any:
    try:
        from skops import io as skops
    except ImportError:
        raise ModelLoadError(
            f"model file {fspath(path)} needs skops to load: run pip install 'skops>=0.12'"
        ) from None
    unknown = tuple(sorted(set(skops.get_untrusted_types(data=content)) - set(trusted)))
    if unknown:
        raise ModelTypesError(
            f"model file {fspath(path)} contains types that are not trusted: "
            f"if you trust them, give --trusted-types {','.join(unknown)}",
            types=unknown,
        )
    return skops.loads(content, trusted=list(trusted))
