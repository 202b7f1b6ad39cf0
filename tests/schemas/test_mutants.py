"""A few thousand broken messages of each format; `make fuzz` tries many more."""

from random import Random

import pytest

from tests.schemas.mutants import Target, attack, targets

NAMES = ("json", "json, nested", "json, by code", "json-schema", "avro", "fhir", "hl7v2")
MUTANTS = 2000


@pytest.fixture(scope="module")
def every_target(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in targets(tmp_path_factory.mktemp("mutants"))}


@pytest.mark.parametrize("name", NAMES)
def test_no_mutant_raises_or_gives_a_number_it_does_not_contain(
    name: str, every_target: dict[str, Target]
) -> None:
    assert every_target.keys() == {*NAMES}
    read = attack(every_target[name], MUTANTS, Random(17))
    assert MUTANTS / 100 < read < MUTANTS  # some are still good, and some are not
