"""What the cluster's programs are told fits together."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from kubernetes import binaries, configs
from kubernetes.configs import Places

PLACES = Places(Path("/home"), Path("/programs"), "/group", "overlayfs")
TOKEN = "a token"
FILES = configs.files(PLACES, TOKEN)
ARGUMENTS = {
    name: getattr(configs, name)(PLACES)
    for name in ("apiserver", "controller_manager", "etcd", "kubelet", "scheduler")
}


def test_the_host_is_where_pods_are_and_services_are_elsewhere() -> None:
    pods, services = IPv4Network(configs.PODS), IPv4Network(configs.SERVICES)
    assert IPv4Address(configs.HOST) in pods
    assert IPv4Address(configs.FIRST_POD) in pods
    assert IPv4Address(configs.HOST) < IPv4Address(configs.FIRST_POD)
    assert not pods.overlaps(services)
    assert pods.is_private
    assert services.is_private


def test_every_file_that_a_program_is_told_of_is_written() -> None:
    """Those that a program writes itself are named here."""
    told = {
        match
        for text in [*FILES.values(), *(each for arguments in ARGUMENTS.values() for each in arguments)]
        for match in re.findall(r"/home/([\w./-]+)", text)
    }
    made_by_programs = {"etcd", "certificates", "certificates/apiserver.crt", "containerd", "addresses"}
    made_by_openssl = {"accounts.key", "accounts.pub"}
    folders = {"cni"}
    assert told - made_by_programs - made_by_openssl - folders <= FILES.keys()
    assert {"kubelet.json", configs.KUBECONFIG, "resolv.conf", "tokens.csv"} <= told


def test_the_token_is_in_files_alone() -> None:
    """Arguments can be read by everybody on a machine."""
    assert TOKEN in FILES["tokens.csv"]
    assert TOKEN in FILES[configs.KUBECONFIG]
    assert [name for name, text in FILES.items() if TOKEN in text] == ["tokens.csv", configs.KUBECONFIG]
    assert not any(TOKEN in each for arguments in ARGUMENTS.values() for each in arguments)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".json", ".conflist"))])
def test_what_looks_like_json_is(name: str) -> None:
    assert json.loads(FILES[name])


def test_the_network_s_programs_are_built() -> None:
    (plugin,) = json.loads(FILES["cni/10-kasaga.conflist"])["plugins"]
    assert {plugin["type"], plugin["ipam"]["type"]} <= binaries.PACKAGES.keys()


def test_what_is_built_is_in_the_module() -> None:
    module = (binaries.TOOLS / "go.mod").read_text()
    for package in binaries.PACKAGES.values():
        assert (
            re.search(rf"^\t{re.escape(package)}$", module, re.MULTILINE)
            or (binaries.TOOLS / package / "main.go").exists()
        ), package


def test_kubernetes_parts_are_of_its_own_version() -> None:
    """Its go.mod says v0.0.0 of each and means the folder beside it, which a module can't do for others."""
    version = binaries.kubernetes_version()
    module = (binaries.TOOLS / "go.mod").read_text()
    replaced = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (\S+)$", module, re.MULTILINE)
    assert len(replaced) > 20
    for name, by, its_version in replaced:
        assert (name, its_version) == (by, version.replace("v1.", "v0.", 1))


def test_the_version_is_stamped_into_the_programs() -> None:
    """Else the server calls itself v0.0.0, and helm refuses every chart that asks for a version."""
    stamps = binaries.flags()[-1]
    version = binaries.kubernetes_version()
    assert f"version.gitVersion={version} " in f"{stamps} "
    assert f"version.gitMinor={version.split('.')[1]} " in f"{stamps} "
