"""FHIR R4 in JSON: an Observation, with components such as blood pressure or without, or a Bundle of one patient's.

A code says what each reading is, and a UCUM code its unit. Anything ambiguous is rejected.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Named
from typing import Any, Final
from urllib.parse import unquote

import orjson

from schemas.columns import Columns
from schemas.contract import NO_FAULT, PATIENT_ID, Problem, Reason, RefusedError
from schemas.fields import ABSENT
from schemas.formats.json import Repeats
from schemas.mapping import Mapping
from schemas.messages import Message
from schemas.names import json_object, walk
from schemas.readings import Content, OneRow, OneTime, Reading, Row, codes_of, rows_of

SYSTEMS: Final = {
    "LOINC": "http://loinc.org",
    "SNOMED": "http://snomed.info/sct",
    "MDC": "urn:iso:std:iso:11073:10101",
}
"""FHIR's URIs for the code systems that a mapping names."""

UCUM: Final = "http://unitsofmeasure.org"

_SCORED = frozenset({"final", "preliminary", "amended", "corrected"})
_LEFT_OUT = {
    "entered-in-error": Reason.RETRACTED,
    "cancelled": Reason.RETRACTED,
    "registered": Reason.NOT_FOR_US,  # no result yet
}

# Every name that is read, and its required type.
_SHAPES: Final[dict[str, type]] = {
    "resourceType": str,
    "entry": list,
    "resource": dict,
    "fullUrl": str,
    "request": dict,
    "method": str,
    "url": str,
    "contained": list,
    "id": str,
    "identifier": object,  # an object in a reference, a list in a Patient
    "type": object,
    "status": str,
    "code": object,  # a text in a coding and in a quantity
    "coding": list,
    "system": str,
    "subject": dict,
    "reference": str,
    "effectiveDateTime": str,
    "effectiveInstant": str,
    "effectivePeriod": dict,
    "end": str,
    "valueQuantity": dict,
    "valueInteger": int,
    "value": object,
    "unit": str,
    "comparator": str,
    "dataAbsentReason": dict,
    "component": list,
    "modifierExtension": list,
    "implicitRules": str,
}

_patient_id = re.compile(r"(?:[^#?]*/)?Patient/([^/#?]+)(?:/_history/[^/#?]+)?").fullmatch
_conditional = re.compile(r"(?:[^#?]*/)?Patient\?identifier=(?:([^|&]*)\|)?([^|&]+)").fullmatch
_may_be_patient = re.compile(r"urn:|#|(?:.*/)?Patient\b").match
_NO_PATIENT: Final = object()
_TYPES = {"valueInteger": int, "valueString": str, "valueBoolean": bool}
_NOTHING: Final[dict[str, Any]] = {}

Resource = dict[str, Any]


def codes_in(message: Message) -> Iterator[str]:
    """The codes of all Observations and components in a message, as a mapping would name them."""
    names = {system: name for name, system in SYSTEMS.items()}
    for path, found in walk(json_object(message)):
        if path[-1] == "code" and isinstance(found, dict):
            codings = found.get("coding")
            for coding in codings if isinstance(codings, list) else ():
                code, system = (_text(coding, name) for name in ("code", "system"))
                yield f"{names.get(system, system)} {code}".strip()


def _text(element: Any, name: str) -> str:
    text = element.get(name) if isinstance(element, dict) else None
    return text if isinstance(text, str) else ""


class FhirReader:
    """Reads Observations and Bundles by the codes of a mapping."""

    def __init__(self, features: Sequence[str], mapping: Mapping, *, max_bytes: int) -> None:
        self._features = features
        self._codes = codes_of(features, mapping, SYSTEMS)
        self._numbers: dict[str, dict[str, int]] = {}
        for (system, code), number in self._codes.items():
            self._numbers.setdefault(system, {})[code] = number
        self._type = mapping.patient_id.type
        self._time = OneTime(mapping.event_time)
        self._row = OneRow(features, mapping)
        self._repeats = Repeats(_SHAPES, nested=True)
        self._max_bytes = max_bytes

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Read a chunk."""
        return rows_of(messages, self._read, self._row.units)

    def _read(self, value: Any) -> Content:
        if not value or len(value) > self._max_bytes:
            raise RefusedError(Reason.TOO_LARGE if value else Reason.EMPTY)
        try:
            document = orjson.loads(value)
        except ValueError:
            raise RefusedError(Reason.NOT_JSON) from None
        if type(document) is not dict:
            raise RefusedError(Reason.NOT_OBJECT)
        if twice := self._repeats.in_one(value, document):
            raise RefusedError(Reason.NOT_JSON, twice)
        try:
            return self._resource(document)
        except (AttributeError, TypeError, KeyError, RecursionError):  # not the shape that FHIR requires
            raise RefusedError(Reason.NOT_DECODABLE, _misshapen(document)) from None

    def _resource(self, resource: Resource) -> Content:
        kind = resource.get("resourceType")
        if kind == "Observation":
            return self._content([resource], _NOTHING, None)
        if kind == "Bundle":
            return self._bundle(resource)
        raise RefusedError(Reason.NOT_DECODABLE if kind is None else Reason.NOT_FOR_US, "resourceType")

    def _bundle(self, bundle: Resource) -> Content:
        observations: list[Resource] = []
        patients: dict[str, Resource] = {}
        left_out: Problem | None = None
        for entry in bundle.get("entry") or ():
            resource = entry.get("resource")
            if resource is None:
                if _deletes(entry):
                    left_out = Reason.RETRACTED, "request"
            elif (kind := resource.get("resourceType")) == "Observation":
                observations.append(resource)
            elif kind == "Patient":
                patients |= {entry.get("fullUrl"): resource, f"Patient/{resource.get('id', '')}": resource}
        return self._content(observations, patients, left_out)

    def _content(
        self, observations: list[Resource], patients: Named[str, Resource], left_out: Problem | None
    ) -> Content:
        """The content of one message's Observations."""
        try:
            who, when, row = self._plain(observations)
        except (AttributeError, LookupError, TypeError, ValueError):
            return self._general(observations, patients, left_out)
        return _of_patient(self._patient(who, observations[0], patients)), when, row

    def _plain(self, observations: list[Resource]) -> tuple[str, str, Row]:
        """The reference, time and row of Observations as most messages have them. Others raise some error.

        They have one patient, one time and one code each; those of our features are scored, and have the only value
        of a feature, in a UCUM unit. What is read here, `_general` would read in the same way.
        """
        row = values, units = self._row.empty()
        numbers = self._numbers
        first = observations[0]
        who, when = first["subject"]["reference"], first["effectiveDateTime"]
        for observation in observations:
            (coding,) = observation["code"]["coding"]
            number = numbers[coding["system"]].get(coding["code"])
            if observation["subject"]["reference"] != who or "component" in observation:
                raise ValueError
            if number is None and observation is not first:
                continue
            quantity = observation["valueQuantity"]
            if (
                number is None
                or values[number] is not None
                or quantity["value"] is None
                or quantity["system"] != UCUM
                or observation["status"] not in _SCORED
                or observation["effectiveDateTime"] != when
                or "comparator" in quantity
                or "dataAbsentReason" in observation
                or "modifierExtension" in observation
                or "implicitRules" in observation
            ):
                raise ValueError
            values[number], units[number] = quantity["value"], quantity["code"]
        if not when or not who or who.startswith("#"):
            raise ValueError
        return who, when, row

    def _general(
        self, observations: list[Resource], patients: Named[str, Resource], left_out: Problem | None
    ) -> Content:
        """The content of any Observations."""
        readings: list[Reading] = []
        read: list[Resource] = []
        for observation in observations:
            found = self._readings(observation)
            if not found:
                continue
            if (status := observation.get("status")) in _SCORED:
                readings += found
                read.append(observation)
            elif (problem := _unscored(status))[0] in NO_FAULT:
                left_out = left_out or problem
            else:
                raise RefusedError(*problem)
        if not read:
            raise RefusedError(*(left_out or (Reason.NOT_FOR_US, "")))
        patient = self._one_patient(read, observations, patients)
        time = self._time([one.get("effectiveDateTime") or _time(one) for one in read])
        return patient, time, self._row(readings)

    def _readings(self, observation: Resource) -> list[Reading]:
        """The readings of our features, with None for a missing value."""
        try:
            (coding,) = observation["code"]["coding"]
            number = self._codes.get((coding["system"], coding["code"]))
        except (KeyError, TypeError, ValueError):  # not one coding, of a system
            number = self._number(observation)
        found = [] if number is None else [_reading(number, observation)]
        return found + self._of_components(observation) if "component" in observation else found

    def _of_components(self, observation: Resource) -> list[Reading]:
        found = [
            _reading(number, component)
            for component in observation["component"] or ()
            if (number := self._number(component)) is not None
        ]
        if found:
            _refuse_modified(observation)
        return found

    def _number(self, element: Resource) -> int | None:
        """The number of the feature that a code stands for."""
        codings: Sequence[Resource] = (element.get("code") or _NOTHING).get("coding") or ()
        number = None
        for coding in codings:
            found = self._codes.get((coding.get("system", ""), coding.get("code")))
            if found is not None:
                if number is not None and found != number:
                    raise RefusedError(Reason.CONFLICTING, self._features[found])
                number = found
        return number

    def _one_patient(
        self, read: list[Resource], observations: list[Resource], patients: Named[str, Resource]
    ) -> Any:
        """The id of the patient of all Observations; those that are not read need not have one."""
        try:
            references = {one["subject"]["reference"] for one in observations}
        except (KeyError, TypeError):  # missing somewhere
            references = {(one.get("subject") or _NOTHING).get("reference") for one in observations}
        reference = references.pop() or ""
        if not references and not reference.startswith("#"):
            return _of_patient(self._patient(reference, read[0], patients))
        ids = {self._patient(_reference(one), one, patients) for one in read}
        others = {self._patient(_reference(one), one, patients) for one in observations}
        ids |= others - {ABSENT, _NO_PATIENT}
        if len(ids) > 1:
            raise RefusedError(Reason.CONFLICTING, PATIENT_ID)
        return _of_patient(ids.pop())

    def _patient(self, reference: str, observation: Resource, patients: Named[str, Resource]) -> Any:
        """The id of an Observation's patient; ABSENT if there is none, _NO_PATIENT if its subject is not a patient."""
        if self._type is None and (id_ := _logical_id(reference)):
            return id_
        if reference and not _may_be_patient(reference):
            return _NO_PATIENT
        patient = _resolved(reference, observation, patients)
        system, value = _condition(reference)
        identifier = (observation.get("subject") or _NOTHING).get("identifier")
        if self._type is not None:
            return self._identifier([identifier, *(patient.get("identifier") or ())], system, value)
        if not reference and identifier is not None:
            value = _there(identifier.get("value"))
        return _there(patient.get("id")) if "id" in patient else value

    def _identifier(self, identifiers: list[Resource | None], system: str, value: Any) -> Any:
        """The one identifier of the type that the mapping names; `value` is an identifier of `system`."""
        found = {_there(one.get("value")) for one in identifiers if one and self._type in _types(one)}
        if system == self._type:
            found.add(value)
        if len(found) > 1:
            raise RefusedError(Reason.CONFLICTING, PATIENT_ID)
        return found.pop() if found else ABSENT


def _unscored(status: Any) -> Problem:
    """Why an Observation of this status is not scored."""
    reason = Reason.MISSING_FIELD if status is None else _LEFT_OUT.get(status, Reason.WRONG_TYPE)
    return reason, "status"


def _of_patient(id_: Any) -> Any:
    if id_ is _NO_PATIENT:
        raise RefusedError(Reason.NOT_FOR_US, "subject")
    return id_


def _reference(observation: Resource) -> str:
    return (observation.get("subject") or _NOTHING).get("reference") or ""


def _logical_id(reference: str) -> str | None:
    """The id in a reference to a Patient on some server."""
    kind, _, id_ = reference.partition("/")
    if kind == "Patient" and id_.replace("-", "").isalnum():  # as nearly always
        return id_
    match = _patient_id(reference)
    return match[1] if match else None


def _there(content: Any) -> Any:
    return ABSENT if content is None else content


def _time(observation: Resource) -> Any:
    """When it was measured; for a period, its end."""
    time = observation.get("effectiveDateTime")
    if time is None:
        time = observation.get("effectiveInstant")
    if time is None:
        time = (observation.get("effectivePeriod") or _NOTHING).get("end")
    return _there(time)


def _reading(number: int, element: Resource) -> Reading:
    """The value and its unit; None if the value is missing or only a limit."""
    try:
        quantity = element["valueQuantity"]
        value, unit, system = quantity["value"], quantity["code"], quantity["system"]
    except (KeyError, TypeError):
        return _odd_reading(number, element)
    if (
        system != UCUM
        or "comparator" in quantity
        or "dataAbsentReason" in element
        or "modifierExtension" in element
        or "implicitRules" in element
    ):
        return _odd_reading(number, element)
    return number, value, unit


def _odd_reading(number: int, element: Resource) -> Reading:
    """A reading with more, less or something other than a value and its UCUM unit."""
    _refuse_modified(element)
    quantity = element.get("valueQuantity")
    if quantity is None:
        return number, _other_value(element), None
    if element.get("dataAbsentReason") is not None:
        raise RefusedError(Reason.CONFLICTING, "dataAbsentReason")
    value = None if "comparator" in quantity else quantity.get("value")
    return number, value, quantity.get("code") if quantity.get("system") == UCUM else _other_unit(quantity)


def _refuse_modified(element: Resource) -> None:
    """Reject modifiers, which change the meaning of the rest in ways we do not know."""
    if "modifierExtension" in element or "implicitRules" in element:
        raise RefusedError(Reason.NOT_DECODABLE, "modifierExtension")


def _other_unit(quantity: Resource) -> Any:
    """A unit that is not a UCUM code: an IEEE 11073 code, or a sender's own word."""
    code, system = quantity.get("code"), quantity.get("system")
    if code is None:
        return quantity.get("unit")
    if system is None:
        return code
    return f"MDC {code}" if system == SYSTEMS["MDC"] else f"{system} {code}"


def _other_value(element: Resource) -> Any:
    """The value that is there instead of a quantity: a whole number, a text, a boolean, or none of these."""
    name = next((name for name in element if name.startswith("value") and element[name] is not None), None)
    if name is None:
        return None
    content = element[name]
    return content if _TYPES.get(name) is type(content) else (name,)


def _deletes(entry: Resource) -> bool:
    request = entry.get("request") or _NOTHING
    return request.get("method") == "DELETE" and (request.get("url") or "").startswith("Observation")


def _resolved(reference: str, observation: Resource, patients: Named[str, Resource]) -> Resource:
    """The Patient in this message that a reference names; an empty one if there is none."""
    if reference.startswith("#"):
        named = [one for one in observation.get("contained") or () if one.get("id") == reference[1:]]
        # Its id means something only within the Observation.
        return {"identifier": named[0].get("identifier")} if named else _NOTHING
    return patients.get(reference) or patients.get(f"Patient/{_logical_id(reference)}") or _NOTHING


def _condition(reference: str) -> tuple[str, Any]:
    """System and value in a reference such as `Patient?identifier=http://hospital.example|123`."""
    match = _conditional(reference) if "?" in reference else None
    if match is None:
        return "", ABSENT
    return unquote(match[1] or ""), unquote(match[2])


def _types(identifier: Resource) -> Iterator[Any]:
    """The keys an identifier can be chosen by: its system, and the codes of its type."""
    yield identifier.get("system")
    for coding in (identifier.get("type") or _NOTHING).get("coding") or ():
        yield coding.get("code")


def _misshapen(document: object) -> str:
    """The outermost name whose value does not have the shape that FHIR requires.

    Not recursive, because the parser accepts more levels than the stack allows.
    """
    left = deque([document])
    while left:
        element = left.popleft()
        if isinstance(element, list):
            left.extend(element)
        elif isinstance(element, dict):
            for name, content in element.items():
                if name in _SHAPES and content is not None and not isinstance(content, _SHAPES[name]):
                    return str(name)
            left.extend(element.values())
    return ""
