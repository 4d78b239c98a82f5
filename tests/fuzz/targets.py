"""What reads bytes from outside, each as a function of an example's parts: it raises KasagaError or nothing.

`test_fuzz.py` and `__main__.py` call them. HTTP is fuzzed by tests/api.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
import tracemalloc
import warnings
from collections.abc import Callable, Generator
from functools import partial
from itertools import pairwise
from uuid import uuid4

import click

from examples.contracts import NAMESPACE, Inventory, Order, Receipt
from examples.inventory import InventoryService
from examples.sagas import app as sagas
from fuzz.parts import Parts
from kasaga.cli import cli
from kasaga.engine.codec import decode as decode_history
from kasaga.engine.decide import Run, decide
from kasaga.engine.model import Started
from kasaga.orchestrator.intake import Dead, Intake, Item
from kasaga.settings import Settings
from kasaga_participant.handlers import Registry
from kasaga_participant.jobs import Intake as CommandIntake
from kasaga_participant.jobs import Question, Rejected
from kasaga_participant.progress import Progress
from kasaga_wire.codec import Schemas, codec_for, to_json
from kasaga_wire.contracts import CommandSpec, contract_of
from kasaga_wire.envelope import AnswerEnvelope, CommandEnvelope, EventEnvelope
from kasaga_wire.errors import KasagaError
from kasaga_wire.kafka import Record
from kasaga_wire.records import answer_codec, control_codec, errors_codec, own_schemas
from kasaga_wire.topics import Topics, reply_topics
from wire import golden_models

MOST_SECONDS = 3.0
"""Of the processor's time, for one example of at most 64 kB; on a slow machine that is measured, too."""

MOST_MEMORY = 64 * 1024 * 1024
"""Bytes that one example may take at its peak."""

NOW_MS = 1_763_800_000_000

TOPICS = Topics(NAMESPACE)

CODECS = [
    *(codec_for(each, name=f"fuzz.{each.__name__}") for each in (Order, Receipt, golden_models.Order)),
    answer_codec,
    control_codec,
    errors_codec,
]


class Broken(AssertionError):
    """Something was read in a way that isn't documented."""


def schemas() -> Schemas:
    """What an orchestrator knows from its start on."""
    known = Schemas()
    for schema in [*own_schemas(), *(codec.schema for codec in CODECS)]:
        known.add(schema)
    return known


def quiet(read: Callable[[], object]) -> None:
    """Lets documented errors pass."""
    try:
        read()
    except KasagaError as error:
        if not error.code.startswith("KSG-"):
            raise Broken(f"an error without a code: {error!r}") from error
        _heard(error)


_listeners: list[list[str]] = []


@contextlib.contextmanager
def listening(outcomes: list[str]) -> Generator[None]:
    """Keeps what errors there were, without what is the example's own."""
    _listeners.append(outcomes)
    try:
        yield
    finally:
        _listeners.remove(outcomes)


def _heard(error: Exception) -> None:
    words = " ".join(re.findall(r"[a-z]{2,}", re.sub(r"'[^']*'|\"[^\"]*\"", "", str(error)))[:2])
    for outcomes in _listeners:
        outcomes.append(f"{type(error).__name__} {words}")


# --- targets ---


def payload(parts: Parts) -> None:
    """A value in Confluent's wire format, read by each model and by who shows it to people."""
    known = schemas()
    for codec in CODECS:
        quiet(partial(codec.decode, parts[0], known))
        quiet(partial(codec.read, parts[0], known))
    quiet(lambda: to_json(parts[0], known))


def foreign(parts: Parts) -> None:
    """A schema that somebody published, and a value that is said to be written with it."""
    known = Schemas()
    try:
        schema = known.add(parts[0].decode("utf-8", "surrogateescape"))
    except KasagaError as error:
        _heard(error)
        return
    data = b"\0" + schema.id.to_bytes(4, "big") + parts[-1]
    for codec in CODECS:
        quiet(partial(codec.decode, data, known))
    quiet(lambda: to_json(data, known))


def record(topic: str, parts: Parts) -> Record:
    """A record: partition, key, value, and names and values of headers by turns; `None` stands for null."""
    partition, key, value, *rest = (*parts, b"0", b"", b"")[: max(3, len(parts))]
    headers = [
        (name.decode("utf-8", "replace"), None if value == b"None" else value)
        for name, value in list(pairwise(rest))[::2]
    ]
    number = int(partition) if partition.isdigit() and len(partition) < 3 else 0
    return Record(topic, number, 7, key, None if value == b"None" else value, headers, NOW_MS)


def input_record(parts: Parts) -> None:
    """A record on each of the topics that an orchestrator reads; what starts a saga is decided, too."""
    known = schemas()
    intake = Intake(TOPICS, 16, known, 7 * 86_400_000)
    for topic in (TOPICS.sagas, TOPICS.replies, TOPICS.control):
        (found,) = intake.read([record(topic, parts)], NOW_MS)
        if isinstance(found, Dead):
            _heard(found.error)
            if "a bug in Kasaga" in str(found.error):
                raise Broken(str(found.error))
        if isinstance(found, Item) and isinstance(found.event, Started):
            defs = sagas.definitions(known, max_payload=900_000)
            decide(defs, Run(str(uuid4())), found.event, at=NOW_MS * 1000, row=1)


def command_record(parts: Parts) -> None:
    """A record on a participant's topic, up to the handler's arguments."""
    registry = Registry(contract_of(Inventory))
    registry.add_service(InventoryService)
    allowed = reply_topics([NAMESPACE])
    place = ("inventory.commands", 0)
    try:
        job = CommandIntake(registry, allowed.__contains__).job(record(*place[:1], parts), Progress(place))
    except (Rejected, Question) as error:
        _heard(error)
        return
    if not job.key[1]:
        raise Broken("a job without a key")
    if job.handler is not None:
        spec = job.handler.spec
        codec = spec.input if isinstance(spec, CommandSpec) else spec.payload
        quiet(lambda: codec.decode(job.record.value or b"", schemas()))


def headers(parts: Parts) -> None:
    """Envelopes of records that clients and listeners read."""
    found = record("any", parts).headers
    for kind in (AnswerEnvelope, EventEnvelope, CommandEnvelope):
        quiet(partial(kind.parse, found))


def history(parts: Parts) -> None:
    """A row of history, which a disk or a restore may have damaged."""
    quiet(lambda: decode_history(1, parts[0]))


def arguments(parts: Parts) -> None:
    """The command line, up to where it would do something."""
    command: click.Command = cli
    words = [part.decode("utf-8", "surrogateescape") for part in parts]
    context = None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            while True:
                context = command.make_context(command.name or "kasaga", words, parent=context)
                if not isinstance(command, click.Group):
                    return
                left = words_left(context)
                if not left:
                    context.fail("Missing command.")  # as `invoke` does before it resolves one
                _, found, words = command.resolve_command(context, left)
                if found is None:
                    return
                command = found
    except (click.ClickException, click.exceptions.Exit, KasagaError) as error:
        _heard(error)


def words_left(context: click.Context) -> list[str]:
    """What a group leaves to its command. Click 9 has all of it in `args`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return [*getattr(context, "protected_args", ()), *context.args]


def environment(parts: Parts) -> None:
    """Settings: names and values by turns."""
    text = [part.decode("utf-8", "surrogateescape").replace("\0", "") for part in parts]
    given = {f"KASAGA_{name}": value for name, value in list(pairwise(text))[::2]}
    quiet(lambda: Settings.from_env(given))


TARGETS: dict[str, Callable[[Parts], None]] = {
    target.__name__.replace("_", "-"): target
    for target in (
        payload,
        foreign,
        input_record,
        command_record,
        headers,
        history,
        arguments,
        environment,
    )
}


def check(target: Callable[[Parts], object], parts: Parts) -> None:
    """Runs an example; raises whatever isn't documented, and Broken if it takes too much."""
    tracemalloc.start()
    began = time.thread_time()
    try:
        target(parts)
        seconds, (_, peak) = time.thread_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if seconds > MOST_SECONDS:
        raise Broken(f"{seconds:.1f} s for one example")
    if peak > MOST_MEMORY:
        raise Broken(f"{peak:,} bytes of memory for one example")
