"""Names that people take for the same and programs don't: another Unicode form, case, blank or alphabet."""

import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

# Letters of other alphabets as the Latin ones that they look like, all in lower case.
_LATIN: Final = str.maketrans(
    "авеһіјкмнорстухѕԁԛԝ" + "αειικνορτυχ" + "ı",  # noqa: RUF001
    "abehijkmhopctyxsdqw" + "aeiikvoptux" + "i",
)
_SEPARATORS: Final = {"Zs", "Pd", "Pc", "Po"}  # blanks, dashes, underscores, dots
_INVISIBLE: Final = {"Cf", "Cc"}


def look_alikes(names: Iterable[str], wanted: Iterable[str]) -> list[tuple[str, str]]:
    """Those of `names` that look like one of `wanted` that is not among them, each with that one."""
    given = [*names]
    missing = {skeleton(name): name for name in wanted if name not in given}
    return [(name, missing[form]) for name in given if (form := skeleton(name)) in missing]


def skeleton(name: str) -> str:
    """The same for names that look alike: without case, alphabet, Unicode form, and kind of blank, dash or dot."""
    letters = unicodedata.normalize("NFKD", name).casefold().translate(_LATIN)
    kinds = ((letter, unicodedata.category(letter)) for letter in letters)
    plain = ("_" if kind in _SEPARATORS else letter for letter, kind in kinds if kind not in _INVISIBLE)
    return "".join(plain).strip("_")


def difference(name: str, other: str) -> str:
    """In what two names differ first, readable however alike they look."""
    for step, start, end, other_start, other_end in SequenceMatcher(
        None, name, other, autojunk=False
    ).get_opcodes():
        if step != "equal":
            return f"{_spelled(name[start:end])} in place of {_spelled(other[other_start:other_end])}"
    return "nothing"


def _spelled(text: str) -> str:
    return " and ".join(map(_named, text)) or "nothing"


def _named(letter: str) -> str:
    if letter.isascii() and letter.isprintable() and letter != " ":
        return letter
    return f"U+{ord(letter):04X} {unicodedata.name(letter, '')}".rstrip()
