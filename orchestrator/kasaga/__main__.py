"""The `kasaga` command, and `python -m kasaga`.

An orchestrator may have to be started anew, and is so before anything is imported that it would import again.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from .steady import hash_steadily


def main() -> NoReturn:
    """Run the command line of this process."""
    if sys.argv[1:2] == ["orchestrator"]:
        hash_steadily()
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
