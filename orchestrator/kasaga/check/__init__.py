"""Reads the code of an App's sagas before it is deployed, and says what would hurt them when they run.

Station: called by `kasaga check`. Static: it parses the files of what is loaded and looks names up in the
modules' real objects; none of the sagas' code is run beyond its import.

    app     the whole: which functions belong to the sagas, and all findings
    rules   what is looked for, each with a code, a severity and a remedy
    sources files as they are read: their functions and their `# kasaga: ignore[…]` comments
    names   what an expression stands for, as far as can be told
    impure  the functions of Python and of known packages whose result can't be repeated
    code    nondeterminism in one function
    steps   steps in one function: what follows what, what is caught, what is never awaited
    fit     contracts and sagas: schemas, names, signatures
"""

from .app import check_app, check_broken
from .rules import RULES, Finding, Rule, Severity

__all__ = ["RULES", "Finding", "Rule", "Severity", "check_app", "check_broken"]
