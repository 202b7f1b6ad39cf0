"""The one place that puts a decoder together, for everybody who reads the input topic."""

from collections.abc import Sequence

from broker.settings import Settings
from schemas.ranges import load_ranges
from schemas.vitals import Decoder


def make_decoder(settings: Settings, features: Sequence[str]) -> Decoder:
    """The decoder of a worker with these settings, for a model with these features.

    Raises SettingsError where the settings and the features do not fit together.
    """
    return Decoder(features, ranges=load_ranges(settings.ranges, features))
