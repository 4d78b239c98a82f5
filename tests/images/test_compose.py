"""`compose.yaml` fits the images and the rest of the project."""

from __future__ import annotations

import re

import pytest

from examples.contracts import NAMESPACE
from examples.stage import SERVICES
from images.build import IMAGES, ROOT
from images.composition import composition, databases, kafka_settings, services
from kasaga.dev.jars import KAFKA_VERSION

ALL = composition()["services"]


def test_everybody_of_the_shop_is_there() -> None:
    assert services().keys() == {"api", "migrate", "orchestrator", *SERVICES}
    assert ALL.keys() - services().keys() == {"kafka", "postgres"}


@pytest.mark.parametrize("name", list(services()))
def test_an_image_is_built_from_its_own_stage(name: str) -> None:
    build = ALL[name]["build"]
    assert build["target"] == IMAGES[ALL[name]["image"]]
    assert (ROOT / build["context"] / build["dockerfile"]).exists()


@pytest.mark.parametrize("name", list(services()))
def test_a_container_may_do_no_more_than_in_the_check(name: str) -> None:
    """`images-test` runs them so, whatever stands here; what stands here has to be as strict."""
    assert ALL[name]["read_only"] is True
    assert ALL[name]["cap_drop"] == ["ALL"]
    assert ALL[name]["security_opt"] == ["no-new-privileges:true"]
    assert "volumes" not in ALL[name]


@pytest.mark.parametrize("name", list(services()))
def test_nobody_starts_before_the_tables_are_there(name: str) -> None:
    waits_for = ALL[name]["depends_on"]
    if name == "migrate":
        assert waits_for == ["postgres"]
        assert ALL[name]["command"][1:3] == ["--namespace", NAMESPACE]
        assert "--wait" in ALL[name]["command"]
    else:
        assert waits_for == {"migrate": {"condition": "service_completed_successfully"}}


def test_only_this_machine_reaches_anything() -> None:
    ports = {name: about["ports"] for name, about in ALL.items() if "ports" in about}
    assert ports == {"api": ["127.0.0.1:8080:8080"]}


def test_every_database_that_is_named_is_made() -> None:
    made = {match[1] for each in databases() if (match := re.fullmatch(r"CREATE DATABASE (\w+);", each))}
    assert len(made) == len(databases())
    made.add(ALL["postgres"]["environment"]["POSTGRES_USER"])
    named = {service.environment["KASAGA_DATABASE_URL"].rpartition("/")[2] for service in services().values()}
    assert named == made


def test_the_broker_is_the_one_that_we_test_with() -> None:
    assert ALL["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert kafka_settings()["auto.create.topics.enable"] == "false"
    (bootstrap,) = {service.environment["KASAGA_KAFKA_BOOTSTRAP_SERVERS"] for service in services().values()}
    assert kafka_settings()["advertised.listeners"] == f"PLAINTEXT://{bootstrap}"
