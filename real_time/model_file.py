"""Model files. A pickle runs code as it loads, so one is loaded only if its bytes have the pinned SHA-256.

A skops file runs none, but can make objects of any type; it is pinned too, and loaded only if it is made of types
that skops trusts or that are listed.
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
    """A model file, or the file with its hash, cannot be read or written."""


class ModelNotPinnedError(ModelError):
    """A model file has no hash to be checked against."""


class ModelHashError(ModelError):
    """A model file does not have the pinned hash, or the pinned hash is malformed."""


class ModelLoadError(ModelError):
    """The bytes are the pinned ones, but can't be loaded as a model."""


class ModelTypesError(ModelLoadError):
    """A skops file has types that are not trusted; `types` are their names."""

    def __init__(self, message: str, *, types: tuple[str, ...]) -> None:
        super().__init__(message)
        self.types = types


class ModelVersionError(ModelLoadError):
    """A model was fitted with another minor version of scikit-learn than the one installed."""


class ModelVersionWarning(UserWarning):
    """A model was fitted with another patch version of scikit-learn than the one installed."""


def load_model(
    path: ModelPath,
    *,
    sha256: str | None = None,
    trusted: Collection[str] = (),
    code: ModelPath | None = None,
) -> Any:
    """The model in the joblib, pickle or skops file `path`, whose bytes must have the hash `sha256`.

    Without `sha256` the hash comes from `<path>.sha256`, as `pin_model` or sha256sum writes it. The bytes
    that are loaded are the very bytes that were hashed. A file is in skops' format if its name ends in .skops; it may
    have only types that skops trusts, or that `trusted` lists by full name. `code` is a folder of the model's own
    Python modules, which this process can import from then on. Raises a subclass of ModelError; warns with
    ModelVersionWarning.
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

    `sha256` is the hash of bytes that were read earlier, if any: the file may have changed since.
    """
    digest = model_sha256(path) if sha256 is None else _checked_sha256(sha256, "sha256")
    write_file(pin_path(path), f"{digest}  {Path(path).name}\n")
    return digest


def write_file(path: Path, text: str) -> None:
    """Write text to a file atomically: a reader finds the old or the new text. Raises ModelFileError."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ModelFileError(f"cannot write {path}: {error.strerror}") from None


def model_sha256(path: ModelPath) -> str:
    """The SHA-256 of the file `path` as it is now, in lower-case hexadecimal."""
    return hashlib.sha256(_read(path)).hexdigest()


def pinned_sha256(path: ModelPath) -> str:
    """The SHA-256 that `<path>.sha256` says the file `path` must have, in lower-case hexadecimal.

    Raises ModelNotPinnedError if there is no such file next to it, ModelHashError if that contains no hash.
    """
    pin = pin_path(path)
    if not pin.exists():
        _read(path)  # of a file that is not there, that is the thing to say
        raise ModelNotPinnedError(
            f"model file {fspath(path)} is not pinned: "
            f"if you trust it, run `vitalstream model pin {fspath(path)}`"
        )
    words = _read(pin).decode("utf-8-sig", errors="replace").split(maxsplit=1)
    return _checked_sha256(words[0] if words else "", str(pin))


def pin_path(path: ModelPath) -> Path:
    """Where the pin of the model file `path` is."""
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
            f"--code {fspath(code)} is not a folder: name the one that the model's own modules are in"
        )
    found = str(Path(code).resolve())
    if found not in sys.path:
        sys.path.append(found)  # last, so that nothing in it takes the place of an installed package


def _look_at(caught: list[warnings.WarningMessage], path: ModelPath) -> None:
    """Pass on what was warned of while a model was loaded, once and in our words where it is a version.

    Raises ModelVersionError for another minor version of scikit-learn.
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
        raise ModelVersionError(
            f"{differs}: fit it again with {installed}, or install scikit-learn=={fitted}"
        )
    warnings.warn(differs, ModelVersionWarning, stacklevel=5)


def _loaded(path: ModelPath, load: Callable[[], Any], content: bytes) -> Any:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = load()
    except ModelLoadError:
        raise
    except Exception as error:  # anything may come out of a pickle; its text may quote the content
        how = "skops.io.dump" if fspath(path).endswith(SKOPS) else "joblib.dump"
        raise ModelLoadError(f"model file {fspath(path)} {complaint(error, content, how=how)}") from None
    _look_at(caught, path)
    return model


def _skops_loads(content: bytes, path: ModelPath, trusted: Collection[str]) -> Any:
    try:
        from skops import io as skops
    except ImportError:
        raise ModelLoadError(
            f"model file {fspath(path)} needs skops to be loaded: run pip install 'skops>=0.12'"
        ) from None
    unknown = tuple(sorted(set(skops.get_untrusted_types(data=content)) - set(trusted)))
    if unknown:
        raise ModelTypesError(
            f"model file {fspath(path)} is made of types that are not trusted: "
            f"if you trust them, say --trusted-types {','.join(unknown)}",
            types=unknown,
        )
    return skops.loads(content, trusted=list(trusted))
