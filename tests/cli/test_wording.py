"""Times and lengths as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kasaga.wording import Paint, length, listed, offset, printable, sentence, shortened, table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 ms"),
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1.24, "1.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d"),
        (100_000, "1 d 3 h"),
        (40 * 86_400, "40 d"),
    ],
)
def test_lengths(seconds: float, text: str) -> None:
    assert length(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "+0.000"),
        (59.9994, "+59.999"),
        (60, "+1:00"),
        (3599.9, "+59:59"),
        (7451, "+2:04:11"),
        (266_651, "+3d 02:04:11"),
    ],
)
def test_offsets(seconds: float, text: str) -> None:
    assert offset(timedelta(seconds=seconds)) == text


def test_texts() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert (sentence("so"), sentence("so!")) == ("so.", "so!")
    assert shortened("a  long\ntext", 7) == "a long…"
    assert printable("é\n\x1b[31m\u202e") == "é\n\\x1b[31m\\x202e"


def test_a_table_fits_the_terminal() -> None:
    rows = [("a", "why " * 30), ("bbb", "")]
    assert table(("ID", "REASON"), rows, width=40)[1] == "a    " + ("why " * 30)[:34] + "…"
    assert len(table(("ID", "REASON"), rows)[1]) == 5 + 119


def test_colours_change_no_width() -> None:
    plain = table(("S", "X"), [("STUCK", "y")], state=0)
    coloured = table(("S", "X"), [("STUCK", "y")], state=0, paint=Paint(colours=True))
    assert plain[1] == "STUCK  y"
    assert coloured[1] == "\x1b[31mSTUCK\x1b[0m  y"
