from __future__ import annotations

import pytest

from helm.chart import Helm


@pytest.fixture(scope="session")
def helm(helm_path: str) -> Helm:
    return Helm(helm_path)
