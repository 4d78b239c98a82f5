"""What sagas are searched by: a small language, and what it means.

    parse(text, now) -> Condition        language.py: text to conditions, or BadQuery with the place
    matches(condition, row) -> bool      conditions.py: what a condition means, in memory

Pure. `kasaga.store.search` says the same to Postgres; the command line, the API and the pages come in here.
"""

from .conditions import Both, Condition, Either, Negated, Test, matches, names_state
from .language import parse

__all__ = ["Both", "Condition", "Either", "Negated", "Test", "matches", "names_state", "parse"]
