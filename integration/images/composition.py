"""What `compose.yaml` says of the services that run our images, for `check.py` to run them.

Docker isn't needed for that, and so isn't tried by it; `compose/` is Docker Compose's own reader.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from images.build import IMAGES, ROOT

FILE = ROOT / "compose.yaml"


class Service(NamedTuple):
    """One service that runs an image of ours."""

    image: str
    command: list[str]
    environment: dict[str, str]


def composition() -> dict[str, Any]:
    """The whole file, with its anchors resolved."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return read


def services() -> dict[str, Service]:
    """The services of ours, by name."""
    return {
        name: Service(about["image"], about.get("command", []), about["environment"])
        for name, about in composition()["services"].items()
        if about["image"] in IMAGES
    }


def kafka_settings() -> dict[str, str]:
    """The broker's settings, by Kafka's own names; its data's place apart."""
    given: dict[str, str] = composition()["services"]["kafka"]["environment"]
    named = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in given.items()}
    del named["log.dirs"]
    return named


def databases() -> list[str]:
    """The statements with which Postgres' image makes the services' databases."""
    content: str = composition()["configs"]["databases"]["content"]
    return [line for line in content.splitlines() if line]
