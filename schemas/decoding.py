"""The one place that puts a decoder together, for everybody who reads the input topic."""

from collections.abc import Sequence

from broker.settings import Settings
from schemas.columns import Reader
from schemas.contract import MAX_MESSAGE_BYTES, STANDARD_FEATURES
from schemas.formats.mapped import json_reader
from schemas.mapping import Mapping, load_mapping
from schemas.ranges import load_ranges
from schemas.vitals import Decoder


def make_decoder(settings: Settings, features: Sequence[str] | None = None) -> Decoder:
    """The decoder of a worker with these settings, for a model with these features.

    Without a model, they are all of the mapping's, else the standard ones. Raises SettingsError where the settings and
    the features do not fit together.
    """
    mapping = None
    if settings.mapping is not None:
        mapping = load_mapping(settings.mapping, value_format=settings.value_format, features=features)
    known = features or (tuple(mapping.features) if mapping else STANDARD_FEATURES)
    ranges = load_ranges(settings.ranges, known)
    return Decoder(known, read=_reader(settings, known, mapping), ranges=ranges, mapping=mapping)


def _reader(settings: Settings, features: Sequence[str], mapping: Mapping | None) -> Reader:
    """What reads --value-format."""
    match settings.value_format:
        case "json":
            return json_reader(features, mapping, max_bytes=MAX_MESSAGE_BYTES)
