"""`vitalstream model`: pins and inspects model files."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib
import numpy
import orjson
import sklearn
import typer

from broker.errors import SettingsError
from broker.settings import Settings
from consumer import model as models
from real_time import model_file
from real_time.model_file import ModelError
from schemas.ranges import load_ranges
from vitalstream.demo_model import DISCLAIMER, make_demo_model, write_readings


def pin(settings: Settings, path: Path, *, json: bool) -> None:
    """Write the hash of a model that a worker can use beside it: from now on exactly these bytes are loaded.

    Raises:
        SettingsError: it can't be used, or the hash not be written.
    """
    try:
        sha256 = models.load(_with_model(settings, path), sha256=model_file.model_sha256(path)).sha256
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


def inspect(settings: Settings, path: Path, *, json: bool) -> None:
    """Load a pinned model and print what a worker would use it for.

    Raises:
        SettingsError: a worker can't use it.
    """
    model = models.load(_with_model(settings, path))
    prepared = model.scorer.prepared
    ranges = load_ranges(settings.ranges, model.features)
    found: dict[str, Any] = {
        "path": str(path),
        "sha256": model.sha256,
        "type": prepared.kind,
        "predicts": type(prepared.classifier).__name__,
        "features": list(model.features),
        "classes": [str(label) for label in prepared.classes],
        "positive_class": str(prepared.positive_class),
        "threshold": prepared.threshold,
        "threshold_from": prepared.threshold_from,
        "ranges": {name: ranges.get(name) for name in model.features},
        "scores_with": model.scorer.path,
        "versions": {module.__name__: module.__version__ for module in _libraries()},
        "cautions": list(model.cautions),
    }
    if json:
        typer.echo(orjson.dumps(found).decode())
        return
    inner = "" if found["predicts"] == found["type"] else f" of {found['predicts']}"
    typer.echo(f"model     {found['type']}{inner}, sha256 {found['sha256']}")
    typer.echo(f"features  {', '.join(model.features)}")
    typer.echo(f"ranges    {_range_checks(found['ranges'])}")
    typer.echo(f"classes   {', '.join(found['classes'])}; {prepared.decision}")
    typer.echo(f"scores    with {model.scorer.path}")
    for caution in model.cautions:
        typer.echo(f"caution   {caution}")
    typer.echo(f"versions  {', '.join(f'{name} {version}' for name, version in found['versions'].items())}")


def _with_model(settings: Settings, path: Path) -> Settings:
    return settings.model_copy(update={"model": path})


def _range_checks(ranges: Mapping[str, tuple[float, float] | None]) -> str:
    """Which features are checked for values that no body can have, and which are not."""
    checked = [f"{name} {limits[0]:g} to {limits[1]:g}" for name, limits in ranges.items() if limits]
    unchecked = [name for name, limits in ranges.items() if not limits]
    none = f"none for {', '.join(unchecked)} (--ranges FILE gives them some)" if unchecked else ""
    return "; ".join(filter(None, [", ".join(checked), none]))


def _libraries() -> Iterator[Any]:
    """Those that the model was loaded with."""
    yield from (sklearn, numpy, joblib)
    yield from (
        sys.modules[name] for name in ("xgboost", "lightgbm", "catboost", "imblearn") if name in sys.modules
    )
