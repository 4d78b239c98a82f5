"""What each program of the cluster is told, as text: its arguments and its configuration files.

Pure; `cluster.py` writes the files and starts the programs.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

BRIDGE = "kasaga0"
HOST = "10.79.0.1"
"""The bridge's address: where the pods find Kafka, Postgres, the cluster's names and its API server."""

PODS, FIRST_POD = "10.79.0.0/16", "10.79.1.1"
SERVICES = "10.96.0.0/16"
DOMAIN = "cluster.local"
NODE = "node"
PORT = 6443

PAUSE_IMAGE = "localhost/kasaga-pause:1"

KUBECONFIG = "kubeconfig.json"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


class Places(NamedTuple):
    """Where things are."""

    home: Path
    """Of the cluster: configuration, data, logs."""
    binaries: Path
    cgroup: str
    """The control group that all pods are below."""
    snapshotter: str
    """Of containerd: overlayfs, or native where that can't be mounted."""

    def path(self, name: str) -> str:
        """A file of the cluster, by its name."""
        return str(self.home / name)


def etcd(places: Places) -> list[str]:
    """The arguments of etcd."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        f"--data-dir={places.path('etcd')}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def apiserver(places: Places) -> list[str]:
    """The arguments of kube-apiserver. It makes its own certificate."""
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={HOST}",
        f"--secure-port={PORT}",
        f"--cert-dir={places.path('certificates')}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--token-auth-file={places.path('tokens.csv')}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={places.path('accounts.pub')}",
        f"--service-account-signing-key-file={places.path('accounts.key')}",
        "--allow-privileged",
        # For logs and exec; nothing resolves the node's name.
        "--kubelet-preferred-address-types=InternalIP",
    ]


def controller_manager(places: Places) -> list[str]:
    """The arguments of kube-controller-manager."""
    return [
        f"--kubeconfig={places.path(KUBECONFIG)}",
        f"--service-account-private-key-file={places.path('accounts.key')}",
        f"--root-ca-file={places.path('certificates/apiserver.crt')}",
        f"--cert-dir={places.path('certificates')}",
        "--leader-elect=false",
    ]


def scheduler(places: Places) -> list[str]:
    """The arguments of kube-scheduler."""
    return [
        f"--kubeconfig={places.path(KUBECONFIG)}",
        f"--cert-dir={places.path('certificates')}",
        "--leader-elect=false",
    ]


def kubelet(places: Places) -> list[str]:
    """The arguments of kubelet."""
    return [
        f"--config={places.path('kubelet.json')}",
        f"--kubeconfig={places.path(KUBECONFIG)}",
        f"--hostname-override={NODE}",
        f"--node-ip={HOST}",
        f"--cert-dir={places.path('certificates')}",
    ]


def files(places: Places, token: str) -> dict[str, str]:
    """All configuration files, by name."""
    return {
        "tokens.csv": f"{token},admin,admin,system:masters\n",
        KUBECONFIG: _kubeconfig(places, token),
        "kubelet.json": _kubelet(places),
        "proxy.json": _proxy(places),
        "containerd.toml": _containerd(places),
        "cni/10-kasaga.conflist": _network(places),
        "Corefile": _names(places),
        # Pods that ask for names of the world get the cluster's, and no answer: there is no world in here.
        "resolv.conf": f"nameserver {HOST}\n",
    }


def _kubeconfig(places: Places, token: str) -> str:
    cluster = {
        "server": f"https://{HOST}:{PORT}",
        "certificate-authority": places.path("certificates/apiserver.crt"),
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kasaga", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "kasaga", "context": {"cluster": "kasaga", "user": "admin"}}],
            "current-context": "kasaga",
        }
    )


def _kubelet(places: Places) -> str:
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "clusterDNS": [HOST],
            "clusterDomain": DOMAIN,
            "resolvConf": places.path("resolv.conf"),
            # Whoever reaches this address is in the sandbox with us.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            # Machines without systemd, with cgroups v1, with swap, without CAP_SYS_RESOURCE.
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": places.cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "oomScoreAdj": 0,
            "localStorageCapacityIsolation": False,
            # A nearly full disk is no reason to evict pods, or to remove images that nobody would bring back.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        }
    )


def _proxy(places: Places) -> str:
    nothing = "0s"
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": places.path(KUBECONFIG)},
            "clusterCIDR": PODS,
            "hostnameOverride": NODE,
            # These would be the machine's, not the sandbox's: left alone.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": nothing,
                "tcpCloseWaitTimeout": nothing,
            },
        }
    )


def _containerd(places: Places) -> str:
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc may not lower it, and dies.
    return dedent(f"""\
        version = 2
        root = "{places.path("containerd")}"
        state = "/run/containerd"
        [grpc]
          address = "{CONTAINERD_SOCKET}"
        [plugins."io.containerd.grpc.v1.cri"]
          sandbox_image = "{PAUSE_IMAGE}"
          restrict_oom_score_adj = true
          disable_apparmor = true
        [plugins."io.containerd.grpc.v1.cri".containerd]
          snapshotter = "{places.snapshotter}"
          default_runtime_name = "runc"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
          runtime_type = "io.containerd.runc.v2"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
          SystemdCgroup = false
        [plugins."io.containerd.grpc.v1.cri".cni]
          bin_dir = "{places.binaries}"
          conf_dir = "{places.path("cni")}"
        """)


def _network(places: Places) -> str:
    addresses = {
        "type": "host-local",
        "dataDir": places.path("addresses"),
        "ranges": [[{"subnet": PODS, "rangeStart": FIRST_POD}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    # hairpinMode: a pod that asks a service may get itself as the answer.
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "kasaga", "plugins": [bridge]})


def _names(places: Places) -> str:
    return dedent(f"""\
        .:53 {{
            errors
            cache 5
            kubernetes {DOMAIN} {{
                kubeconfig {places.path(KUBECONFIG)}
                ttl 5
            }}
        }}
        """)
