"""The one place that puts a decoder together, for everybody who reads the input topic."""

from collections.abc import Sequence

from broker.settings import Settings
from schemas.contract import STANDARD_FEATURES
from schemas.mapping import load_mapping
from schemas.ranges import load_ranges
from schemas.vitals import Decoder


def make_decoder(settings: Settings, features: Sequence[str] | None = None) -> Decoder:
    """The decoder of a worker with these settings, for a model with these features.

    Without a model, they are all of the mapping's, else the standard ones. Raises SettingsError where the settings and
    the features do not fit together.
    """
    mapping = None
    if settings.mapping is not None:
        mapping = load_mapping(settings.mapping, value_format="json", features=features)
    known = features or (tuple(mapping.features) if mapping else STANDARD_FEATURES)
    return Decoder(known, ranges=load_ranges(settings.ranges, known), mapping=mapping)
