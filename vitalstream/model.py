"""`vitalstream model`: pins and inspects model files."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import orjson
import typer

from broker.errors import SettingsError
from broker.settings import Settings
from consumer import model as models
from real_time import model_file
from real_time.card import Card, History, card_path, library_versions, read_card, write_card
from real_time.features import Dtype, Feature
from real_time.model_file import ModelError, load_model
from real_time.prepared import prepare
from schemas.ranges import load_ranges
from schemas.vitals import vitals_schema
from vitalstream.columns import described
from vitalstream.demo_model import DISCLAIMER, make_demo_model, write_readings

_SHOWN: Final = 6  # columns of a history


def pin(
    settings: Settings,
    path: Path,
    *,
    data: Path | None,
    name: str | None,
    version: str | None,
    note: str | None,
    json: bool,
) -> None:
    """Write the hash and card of a model that a worker can use next to it: from then on only these bytes are loaded.

    What is not given is kept from an earlier card of the same bytes. `data` is a file with a column for each feature;
    `name`, `version` and `note` are only for the card.

    Raises:
        SettingsError: the model can't be used, the data does not fit it, or the files can't be written.
    """
    try:
        sha256 = model_file.model_sha256(path)
        known = read_card(path)
        known = known if known is not None and known.sha256 == sha256 else Card(sha256)
        if data is not None:
            known = replace(known, features=_in_data(data, settings, path, known))
        model = models.load(_with_model(settings, path), sha256=sha256, card=known, with_history=True)
        card = replace(
            model.described(),
            name=name or known.name,
            version=version or known.version,
            note=note or known.note,
        )
        write_card(path, card)
        model_file.pin_model(path, sha256=sha256)
    except ModelError as error:
        raise SettingsError(str(error)) from None
    models.warn_of(model)
    if json:
        typer.echo(orjson.dumps({"path": str(path), "sha256": sha256, "card": card.document()}).decode())
        return
    typer.echo(f"{sha256}  {path}")
    typer.echo(f"pinned in {path}.sha256; loading a model runs its code, so pin only what you trust")
    typer.echo(f"card in {card_path(path)}: {model.scorer.prepared.decision}")
    if card.history is not None:
        typer.echo(f"history: {_of_history(card.history)}")


def _in_data(data: Path, settings: Settings, path: Path, card: Card) -> tuple[Feature, ...]:
    """The model's features as described by rows of data; the values of its own categories take precedence."""
    given = settings.of_model
    model = load_model(path, sha256=card.sha256, trusted=given.pop("trusted"), code=given.pop("code"))
    prepared = prepare(model, **given, card=card)
    known = {name for name, learned in prepared.learned.items() if learned.values}
    found = described(data, [one.name for one in prepared.fields])
    return tuple(replace(one, values=None) if one.name in known else one for one in found)


def make_demo(path: Path, *, data: Path | None, seed: int, json: bool) -> None:
    """Make and pin a small model from simulated patients; with `data`, also a file of others to replay."""
    made = make_demo_model(path, seed=seed)
    rows = write_readings(data, seed=seed) if data is not None else 0
    if json:
        typer.echo(orjson.dumps({"path": str(path), **asdict(made), "data_rows": rows}).decode())
        return
    typer.echo(f"{path}: logistic regression, {made.rows:,} readings, AUROC {made.auroc:.2f}; {DISCLAIMER}")
    if data is not None:
        typer.echo(f"{data}: {rows:,} rows of other simulated patients, to replay")


def inspect(settings: Settings, path: Path, *, json: bool) -> None:
    """Load a pinned model and print how a worker would use it.

    Raises:
        SettingsError: a worker can't use it.
    """
    model = models.load(_with_model(settings, path), with_history=True)
    prepared = model.scorer.prepared
    ranges = load_ranges(settings.ranges, model.features)
    found: dict[str, Any] = {
        "path": str(path),
        "sha256": model.sha256,
        "type": prepared.kind,
        "predicts": type(prepared.classifier).__name__,
        "features": list(model.features),
        "history": asdict(history) if (history := model.described().history) else None,
        "schema": vitals_schema(model.features, dtypes=model.dtypes, categories=model.categories),
        "card": model.card and model.card.document(),
        "classes": [str(label) for label in prepared.classes],
        "positive_class": str(prepared.positive_class),
        "threshold": prepared.threshold,
        "threshold_from": prepared.threshold_from,
        "ranges": {name: ranges.get(name) for name in model.features},
        "scores_with": model.scorer.path,
        "versions": library_versions(),
        "cautions": list(model.cautions),
    }
    if json:
        typer.echo(orjson.dumps(found).decode())
        return
    inner = "" if found["predicts"] == found["type"] else f" of {found['predicts']}"
    typer.echo(f"model     {found['type']}{inner}, sha256 {found['sha256']}")
    for line in _of_card(model.card):
        typer.echo(f"card      {line}")
    typer.echo(f"features  {', '.join(map(_with_dtype, prepared.fields))}")
    if history is not None:
        typer.echo(f"history   {_of_history(history)}")
    numbers = {name: ranges.get(name) for name in model.features if name not in model.dtypes}
    if numbers:
        typer.echo(f"ranges    {_range_checks(numbers)}")
    typer.echo(f"classes   {', '.join(found['classes'])}; {prepared.decision}")
    typer.echo(f"scores    with {model.scorer.path}")
    for caution in model.cautions:
        typer.echo(f"caution   {caution}")
    typer.echo(f"versions  {', '.join(f'{name} {version}' for name, version in found['versions'].items())}")


def _with_model(settings: Settings, path: Path) -> Settings:
    return settings.model_copy(update={"model": path})


def _range_checks(ranges: Mapping[str, tuple[float, float] | None]) -> str:
    """Which features are checked against physiologic limits, and which are not."""
    checked = [f"{name} {limits[0]:g} to {limits[1]:g}" for name, limits in ranges.items() if limits]
    unchecked = [name for name, limits in ranges.items() if not limits]
    none = f"none for {', '.join(unchecked)} (set some with --ranges FILE)" if unchecked else ""
    return "; ".join(filter(None, [", ".join(checked), none]))


def _of_card(card: Card | None) -> list[str]:
    """Its name, version and note, as far as given."""
    return (
        [line for line in (" ".join(filter(None, [card.name, card.version])), card.note) if line]
        if card
        else []
    )


def _of_history(history: History) -> str:
    """Some of its columns, and its recipe."""
    shown, left = history.gives[:_SHOWN], len(history.gives) - _SHOWN
    more = f" and {left} more" if left > 0 else ""
    return f"gives the model {', '.join(shown)}{more}; recipe {history.recipe_sha256}"


def _with_dtype(feature: Feature) -> str:
    if feature.dtype == Dtype.NUMBER:
        return feature.name
    values = f" of {', '.join(feature.values)}" if feature.values else ""
    return f"{feature.name} ({feature.dtype}{values})"
