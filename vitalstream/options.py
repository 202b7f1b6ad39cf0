"""Turns the table of settings into a command's options, and the given options into a Settings object.

A flag that is not given is None, so that the environment and the configuration file apply.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.options import OPTIONS

Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout, and nothing else there")]

_CONFIG = typer.Option(
    "--config", metavar="FILE", help="TOML file of settings, with librdkafka properties under kafka"
)
_PROPERTIES = typer.Option(
    "-X", metavar="KEY=VALUE", help="any librdkafka property, or schema.registry.*; repeatable"
)


OF_MODEL = ("threshold", "positive_class", "features", "code", "trusted_types")
"""Settings that describe a model."""

OF_FORMAT = ("value_format", "schema_registry", "schema_subject", "schema_file")
"""Settings for the format of input messages."""

OF_RESULTS = ("result_format", "schema_registry")
"""Settings for the format of results."""

OF_INPUT = (*OF_FORMAT, "mapping")
"""Settings that describe the input topic's messages."""


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these settings, `--config`, `-X` and `--secrets-dir`.

    The command receives the Settings as its first argument, after warnings about what is unsafe in them.
    """
    if "model" in names:
        names += OF_MODEL
    names += ("secrets_dir",)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*, config: Path | None, properties: list[str] | None, **given: Any) -> None:
            from broker.cautions import cautions
            from broker.settings import load_settings

            flags = {name: given.pop(name) for name in names}
            settings = load_settings(config=config, properties=properties or (), **flags)
            if unsafe := cautions(settings, properties or ()):
                from vitalstream.logs import warn

                warn(unsafe, settings.log_format)
            command(settings, **given)

        _, *own = inspect.signature(command).parameters.values()
        shared = [_parameter(name, _annotation(name)) for name in names]
        shared.append(_parameter("config", Annotated[Path | None, _CONFIG]))
        shared.append(_parameter("properties", Annotated[list[str] | None, _PROPERTIES]))
        positional = [p for p in own if p.default is inspect.Parameter.empty]
        keywords = [p for p in own if p.default is not inspect.Parameter.empty]
        parameters = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*positional, *shared, *keywords)
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _annotation(name: str) -> Any:
    setting = OPTIONS[name]
    if setting.default is False:
        return Annotated[bool | None, typer.Option(f"--{name.replace('_', '-')}", help=setting.help)]
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=setting.help
        if setting.default in (None, "")
        else f"{setting.help}  [default: {setting.default}]",
        metavar=setting.metavar,
    )
    return Annotated[str | None, option]  # text, which Settings checks as it does the environment's


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
