"""The one place that puts a decoder together, for everybody who reads the input topic."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from broker.errors import SettingsError
from broker.settings import Settings
from schemas.columns import Documents, Reader
from schemas.contract import MAX_MESSAGE_BYTES, STANDARD_FEATURES
from schemas.formats.fhir import FhirReader
from schemas.formats.framing import Bare
from schemas.formats.mapped import json_reader, object_reader
from schemas.mapping import Mapping, load_mapping
from schemas.ranges import load_ranges
from schemas.vitals import Decoder

if TYPE_CHECKING:
    from schemas.formats.avro import AvroSchema


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
    return Decoder(known, ranges=ranges, mapping=mapping, read=_reader(settings, known, mapping))


def _reader(settings: Settings, features: Sequence[str], mapping: Mapping | None) -> Reader:
    """What reads --value-format."""
    match settings.value_format:
        case "json":
            return json_reader(features, mapping)
        case "avro":
            documents = _avro_documents(settings)
            from schemas.formats.avro import FiniteReader

            return FiniteReader(object_reader(features, mapping, documents))
        case "fhir":
            return FhirReader(features, _needed(settings, mapping), max_bytes=MAX_MESSAGE_BYTES)


def make_documents(settings: Settings) -> Documents | None:
    """What makes objects of messages that are no text; None where they are text.

    Raises SettingsError where there is no schema, or nothing to read with.
    """
    return _avro_documents(settings) if settings.value_format == "avro" else None


def _avro_documents(settings: Settings) -> Documents:
    if find_spec("fastavro") is None:
        raise SettingsError(
            "--value-format avro needs fastavro: run pip install 'fastavro>=1.9', or install vitalstream with the "
            "extra avro"
        )
    from schemas.formats.avro import AvroDocuments

    return AvroDocuments(Bare(_schema_of(settings)))


def _schema_of(settings: Settings) -> "AvroSchema":
    from schemas.formats.avro import AvroSchema, UnusableSchemaError

    file = settings.schema_file
    if file is None:
        raise SettingsError(
            "--value-format avro needs --schema-file: the schema that messages are written with"
        )
    try:
        return AvroSchema(file.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"--schema-file {file}: {(error.strerror or '').lower()}; check the path"
        ) from None
    except UnusableSchemaError as error:
        raise SettingsError(f"--schema-file {file}: it {error}; messages can't be read by it") from None


def _needed(settings: Settings, mapping: Mapping | None) -> Mapping:
    if mapping is None:
        raise SettingsError(
            f"--value-format {settings.value_format} needs --mapping, which says by which codes a feature comes; "
            f"--mapping {settings.value_format} is ready-made"
        )
    return mapping
