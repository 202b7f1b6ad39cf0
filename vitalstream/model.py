"""`vitalstream model`: pins and inspects model files."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib
import numpy
import orjson
import sklearn
import typer

from broker.errors import SettingsError
from real_time import model_file
from real_time.model_file import ModelError
from real_time.usable import load_usable
from vitalstream.demo_model import DISCLAIMER, make_demo_model, write_readings


def pin(path: Path, *, trusted: Sequence[str], json: bool) -> None:
    """Write the hash of a model that a worker can use beside it: from now on exactly these bytes are loaded.

    Raises:
        SettingsError: it can't be used, or the hash not be written.
    """
    try:
        sha256 = load_usable(path, sha256=model_file.model_sha256(path), trusted=trusted).sha256
        model_file.pin_model(path, sha256=sha256)
    except ModelError as error:
        raise SettingsError(str(error)) from None
    if json:
        typer.echo(orjson.dumps({"path": str(path), "sha256": sha256}).decode())
    else:
        typer.echo(
            f"{sha256}  {path}\npinned in {path}.sha256; a model runs code as it loads, so pin what you trust"
        )


def make_demo(path: Path, *, data: Path | None, seed: int, json: bool) -> None:
    """Make and pin a small model from simulated patients, and with `data` a file of others to replay."""
    made = make_demo_model(path, seed=seed)
    rows = write_readings(data, seed=seed) if data is not None else 0
    if json:
        typer.echo(orjson.dumps({"path": str(path), **asdict(made), "data_rows": rows}).decode())
        return
    typer.echo(f"{path}: logistic regression, {made.rows:,} readings, AUROC {made.auroc:.2f}; {DISCLAIMER}")
    if data is not None:
        typer.echo(f"{data}: {rows:,} readings of other simulated patients, to replay")


def inspect(path: Path, *, trusted: Sequence[str], json: bool) -> None:
    """Load a pinned model and print what a worker would use it for.

    Raises:
        SettingsError: a worker can't use it.
    """
    try:
        model = load_usable(path, trusted=trusted)
    except ModelError as error:
        raise SettingsError(str(error)) from None
    found: dict[str, Any] = {
        "path": str(path),
        "sha256": model.sha256,
        "type": type(model.scorer.model).__name__,
        "features": list(model.features),
        "classes": [str(label) for label in getattr(model.scorer.model, "classes_", ("0", "1"))],
        "scores_with": model.scorer.path,
        "versions": {module.__name__: module.__version__ for module in (sklearn, numpy, joblib)},
    }
    if json:
        typer.echo(orjson.dumps(found).decode())
        return
    typer.echo(f"model     {found['type']}, sha256 {found['sha256']}")
    typer.echo(f"features  {', '.join(model.features)}")
    typer.echo(
        f"classes   {', '.join(found['classes'])}; the risk is the probability of {found['classes'][1]}"
    )
    typer.echo(f"scores    with {model.scorer.path}")
    typer.echo(f"versions  {', '.join(f'{name} {version}' for name, version in found['versions'].items())}")
