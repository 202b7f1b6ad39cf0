"""Tables in reports: text from messages and models is printed verbatim."""

import pytest

from vitalstream.tables import make_table, print_table


@pytest.mark.parametrize(
    "text", ["[/b]", "lactate [mmol/l]", "[degF]", "[red]p[/red]", ":heart: rate", r"a\[b]"]
)
def test_text_that_looks_like_markup_is_printed_verbatim(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_table("field", "messages", right=("messages",))
    table.add_row(text, "1")
    print_table(table)
    assert capsys.readouterr().out.splitlines()[2].split("  ")[0].strip().removesuffix(" 1").strip() == text
