from __future__ import annotations

import pytest

from eventually import eventually, never


def test_gives_the_first_true_answer() -> None:
    answers = iter([None, 0, "", "here"])

    assert eventually(lambda: next(answers)) == "here"


def test_takes_a_failed_assertion_for_not_yet() -> None:
    tries: list[int] = []

    def question() -> bool:
        tries.append(1)
        assert len(tries) == 3
        return True

    assert eventually(question)
    assert len(tries) == 3


def test_says_the_last_answer_when_patience_ends() -> None:
    with pytest.raises(AssertionError, match=r"not true within 0.01 s: the last answer was \[\]"):
        eventually(list, timeout=0.01)


def test_says_the_last_problem_when_patience_ends() -> None:
    def question() -> bool:
        assert len("one") == len("four"), "one is not four"
        return True

    with pytest.raises(AssertionError, match="one is not four"):
        eventually(question, timeout=0.01)


def test_lets_other_errors_through() -> None:
    def question() -> bool:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        eventually(question)


def test_never_fails_on_a_true_answer() -> None:
    answers = iter([0, 0, 7])

    with pytest.raises(AssertionError, match="never should: 7"):
        never(lambda: next(answers), during=5)
