"""Names that look the same to people but not to programs: another Unicode form, case, blank or alphabet."""

import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

# Cyrillic and Greek letters as the Latin ones that they look like, in lower case: those of Unicode's confusables.txt
# (UTS #39), and some whose capitals alone look alike.
_LATIN: Final = str.maketrans(
    "авгеһіјкмнорстухѕѵѡԁԍԛԝү" + "αγεικνορστυχ" + "ı",  # noqa: RUF001
    "abrehijkmhopctyxsvwdgqwy" + "ayeikvopotux" + "i",
)
# Greek capitals that look like a different Latin letter than their small forms.
_LATIN_CAPITALS: Final = str.maketrans("ΒΖΗΜΝΥ", "BZHMNY")  # noqa: RUF001
_UNSEEN: Final = {
    "Zs",
    "Pd",
    "Pc",
    "Po",
    "Cf",
    "Cc",
}  # blanks, dashes, underscores, dots, and what has no glyph


def look_alikes(names: Iterable[str], wanted: Iterable[str]) -> list[tuple[str, str]]:
    """The `names` that look like a wanted name that is missing from them, each with that wanted name."""
    given, wanted = [*names], [*wanted]
    missing = {form: name for name in wanted if name not in given for form in skeletons(name)}
    others = (name for name in given if name not in wanted)
    return [(name, missing[form]) for name in others for form in sorted(skeletons(name) & missing.keys())[:1]]


def skeletons(name: str) -> set[str]:
    """Forms of a name without case, alphabet, Unicode form, blanks, dashes and dots; look-alikes share one.

    A name with a Greek capital has two: the capital may stand for a Latin one, or for its own small letter.
    """
    decomposed = unicodedata.normalize("NFKD", name)
    return {_plain(decomposed), _plain(decomposed.translate(_LATIN_CAPITALS))}


def _plain(name: str) -> str:
    letters = name.casefold().translate(_LATIN)
    return "".join(letter for letter in letters if unicodedata.category(letter) not in _UNSEEN)


def difference(name: str, other: str) -> str:
    """The first difference between two names, readable however alike they look."""
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
