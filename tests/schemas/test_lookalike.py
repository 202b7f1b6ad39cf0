"""Names that look alike, and how they differ."""

import unicodedata

import pytest

from schemas.lookalike import difference, look_alikes, skeletons

COMPOSED = unicodedata.normalize("NFC", "température")
DECOMPOSED = unicodedata.normalize("NFD", "température")
ONE, TWO = "U+00E9 LATIN SMALL LETTER E WITH ACUTE", "e and U+0301 COMBINING ACUTE ACCENT"


@pytest.mark.parametrize(
    ("name", "other", "told"),
    [
        (DECOMPOSED, COMPOSED, f"{TWO} in place of {ONE}"),
        (COMPOSED, DECOMPOSED, f"{ONE} in place of {TWO}"),
        ("heart\u00a0rate", "heart_rate", "U+00A0 NO-BREAK SPACE in place of _"),
        ("heart rate", "heart_rate", "U+0020 SPACE in place of _"),
        ("heart.rate", "heart_rate", ". in place of _"),
        ("heart\u2011rate", "heart-rate", "U+2011 NON-BREAKING HYPHEN in place of -"),
        ("spo2\u200b", "spo2", "U+200B ZERO WIDTH SPACE in place of nothing"),
        ("spo2", "\ufeffspo2", "nothing in place of U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        (" spo2", "spo2", "U+0020 SPACE in place of nothing"),
        ("Spo2", "spo2", "S in place of s"),
        ("heartRate", "heart_rate", "R in place of _ and r"),
        ("heartrate", "heart_rate", "nothing in place of _"),
        ("heart\u00adrate", "heart_rate", "U+00AD SOFT HYPHEN in place of _"),
        ("\uff53po2", "spo2", "U+FF53 FULLWIDTH LATIN SMALL LETTER S in place of s"),
        ("spo\u2082", "spo2", "U+2082 SUBSCRIPT TWO in place of 2"),
        ("\u0455po2", "spo2", "U+0455 CYRILLIC SMALL LETTER DZE in place of s"),
        ("HE\u0410RT_RATE", "HEART_RATE", "U+0410 CYRILLIC CAPITAL LETTER A in place of A"),
        ("\u03bfxygen", "oxygen", "U+03BF GREEK SMALL LETTER OMICRON in place of o"),
        ("\u0397R", "HR", "U+0397 GREEK CAPITAL LETTER ETA in place of H"),
        ("\u0397\u03b2", "\u03b7\u03b2", "U+0397 GREEK CAPITAL LETTER ETA in place of U+03B7 GREEK SMALL LETTER ETA"),
        ("ur\u03adea", "ur\u00e9ea", "U+03AD GREEK SMALL LETTER EPSILON WITH TONOS in place of "
         "U+00E9 LATIN SMALL LETTER E WITH ACUTE"),
        ("\u00b5g", "\u03bcg", "U+00B5 MICRO SIGN in place of U+03BC GREEK SMALL LETTER MU"),
    ],
)  # fmt: skip
def test_names_that_look_alike_are_found_with_their_difference(name: str, other: str, told: str) -> None:
    assert look_alikes(["x", name], [other, "y"]) == [(name, other)]
    assert difference(name, other) == told


@pytest.mark.parametrize(
    ("name", "other"),
    [("spo2", "spo1"), ("sbp", "dbp"), ("température", "temperature"), ("na", "n"), ("lactate", "lactose")],
)
def test_names_that_look_different_are_not_found(name: str, other: str) -> None:
    assert look_alikes([name], [other]) == []


def test_a_wanted_name_that_is_present_has_no_look_alikes() -> None:
    assert look_alikes(["spo2", "SpO2"], ["spo2"]) == []
    assert look_alikes(["SpO2", "SPO2"], ["spo2"]) == [("SpO2", "spo2"), ("SPO2", "spo2")]


def test_a_wanted_name_is_not_a_look_alike_of_another() -> None:
    assert look_alikes(["x_11"], ["x_11", "x_1_1"]) == []


def test_equal_names_have_the_same_skeleton_and_no_difference() -> None:
    assert skeletons(COMPOSED) == skeletons(COMPOSED)
    assert difference("spo2", "spo2") == "nothing"
