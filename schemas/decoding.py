"""Assembles the decoder for everything that reads the input topic."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from broker.errors import SettingsError
from broker.settings import Settings
from schemas.columns import Documents, Reader
from schemas.contract import ALL_NUMBERS, MAX_MESSAGE_BYTES, STANDARD_FEATURES, Wanted
from schemas.formats import fhir, hl7v2
from schemas.formats.framing import Bare, ByReference, Unchecked, UnusableSchemaError
from schemas.formats.json import FramedJsonDocuments, JsonDocuments
from schemas.formats.mapped import json_documents, object_reader
from schemas.mapping import Mapping, load_mapping
from schemas.messages import Message
from schemas.names import Names, coded_names, names_for
from schemas.ranges import load_ranges
from schemas.registry import make_registry
from schemas.vitals import Decoder

if TYPE_CHECKING:
    from schemas.formats.avro import AvroSchema

log = logging.getLogger("vitalstream.schemas")


def make_decoder(settings: Settings, model: Wanted | None = None) -> Decoder:
    """The decoder of a worker with these settings and this model.

    Without a model, the features are the mapping's, else the standard ones. Raises SettingsError if the settings and
    the features do not fit together.
    """
    features = None if model is None else model.features
    mapping = None
    if settings.mapping is not None:
        mapping = load_mapping(settings.mapping, value_format=settings.value_format, features=features)
    known = features or (tuple(mapping.features) if mapping else STANDARD_FEATURES)
    ranges = load_ranges(settings.ranges, known)
    dtypes = ALL_NUMBERS if model is None else model.dtypes
    read, names = _reader(settings, known, mapping)
    return Decoder(known, dtypes=dtypes, ranges=ranges, mapping=mapping, read=read, names=names)


def _reader(
    settings: Settings, features: Sequence[str], mapping: Mapping | None
) -> tuple[Reader | None, Names | None]:
    """What reads --value-format, and the names in it; None if the decoder does so itself."""
    match settings.value_format:
        case "json":
            return None, None
        case "json-schema":
            documents = _framed_json(settings, json_documents(features, mapping))
            return object_reader(features, mapping, documents), _names(features, mapping, documents)
        case "avro":
            documents = _avro_documents(settings)
            from schemas.formats.avro import FiniteReader

            read = FiniteReader(object_reader(features, mapping, documents))
            return read, _names(features, mapping, documents)
        case "fhir":
            mapping = _needed(settings, mapping)
            names = coded_names(features, mapping, fhir.codes_in)
            return fhir.FhirReader(features, mapping, max_bytes=MAX_MESSAGE_BYTES), names
        case "hl7v2":
            mapping = _needed(settings, mapping)
            names = coded_names(features, mapping, hl7v2.codes_in)
            return hl7v2.Hl7Reader(features, mapping, max_bytes=MAX_MESSAGE_BYTES), names


def _names(features: Sequence[str], mapping: Mapping | None, documents: Documents) -> Names:
    def load(message: Message) -> object:
        _, found, _ = documents([message])
        return found[0] if found else None

    return names_for(features, mapping, load)


def make_documents(settings: Settings) -> Documents | None:
    """The reader that turns binary messages into objects; None if messages are text.

    Raises SettingsError if there is no schema, or no library to read it with.
    """
    match settings.value_format:
        case "json-schema":
            return _framed_json(settings, json_documents((), None))
        case "avro":
            return _avro_documents(settings)
        case _:
            return None


def require_registry(settings: Settings) -> None:
    """If messages have schemas in a registry, require that it answers; warn if their subject is not there.

    Raises:
        SettingsError: its properties make no sense.
        RegistryError: it can't be asked.
    """
    if settings.schema_registry is None or settings.value_format not in ("avro", "json-schema"):
        return
    registry = make_registry(settings)
    if not registry.require():
        log.warning(
            "the schema registry has no subject %s: messages with schemas of other subjects become dead letters "
            "(unknown_schema); if that is not its name, give --schema-subject",
            registry.subject,
        )


def _framed_json(settings: Settings, json: JsonDocuments) -> Documents:
    if settings.schema_registry is None:
        return FramedJsonDocuments(Unchecked(), json)
    return FramedJsonDocuments(ByReference(make_registry(settings), lambda _: None), json)


def _avro_documents(settings: Settings) -> Documents:
    if find_spec("fastavro") is None:
        raise SettingsError(
            "--value-format avro needs fastavro: run pip install 'fastavro>=1.9', or install vitalstream with the "
            "extra avro"
        )
    from schemas.formats.avro import AvroDocuments, written_with

    if settings.schema_registry is None:
        return AvroDocuments(Bare(avro_schema_of(settings)))
    return AvroDocuments(ByReference(make_registry(settings), written_with))


def avro_schema_of(settings: Settings) -> "AvroSchema":
    """The schema of --schema-file. Raises SettingsError."""
    from schemas.formats.avro import AvroSchema

    file = settings.schema_file
    if file is None:
        raise SettingsError(
            "--value-format avro needs --schema-registry, or --schema-file where messages say nothing of their schema"
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
