"""Signals, updates and queries: what may be sent to a saga, and when its code is given it.

A signal is history the moment it comes: it is recorded whatever the saga does, parked or not, and lies in its
mail (mail.py) until the code waits for one of its name. Then the oldest is the outcome of the step that has
waited longest; nothing else decides who gets what, so a replay needs only the recorded Take. A signal that
the waiting code can't read is set aside, with the reason, and the wait goes on: a wrong sender mustn't be
able to park a saga. An update is looked at by the saga's own validator before it is recorded; a query is
answered from the live code, or from one that a replay has brought back, and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kasaga_wire.codec import schema_id
from kasaga_wire.errors import DecodeError, KasagaError
from kasaga_wire.nodes import clean_text

from ..errors import (
    Interrupt,
    MailboxFull,
    NotApplicable,
    QueryFailed,
    SagaCodeError,
    SagaOver,
    SignalRefused,
    UpdateRefused,
)
from . import lifecycle
from .awaited import is_awaited, parts, said
from .driver import Guard
from .failures import words
from .model import Accept, Drop, Message, Signalled, Take, Updated
from .requests import fit
from .state import MAX_REASON

if TYPE_CHECKING:
    from .run import Definitions, Run
    from .state import State
    from .turn import Turn

MAX_WAITING = 1_000
"""Undelivered signals of one saga."""

MAX_WAITING_BYTES = 8_000_000
"""Bytes of them: they are in memory while the saga is."""

MAX_MESSAGES = 50_000
"""Signals and updates of one run in all: its history is read as a whole whenever its process changes."""


def refuses(defs: Definitions, run: Run, event: Message, guard: Guard) -> NotApplicable | None:
    """Say why a signal or an update can't be recorded, or return None. Runs an update's validator."""
    unfit = over(run.state) or no_room(run.state, event, defs.max_payload) or _foreign(defs, event)
    if unfit is not None:
        return unfit
    if isinstance(event, Signalled):
        return _undeclared(defs, run.state, event, guard)
    return _invalid(defs, run, event, guard)


def over(state: State) -> NotApplicable | None:
    """Say that no code of the saga will ever take anything, if that is so."""
    if state.final:
        return SagaOver(f"the saga has ended: it is {state.state}")
    if state.phase != lifecycle.RUNNING:
        return SagaOver("the saga is being undone: its code takes nothing any more")
    ended = state.returned is not None and not state.renews  # else what comes is for the next run
    return SagaOver("the saga's code has ended") if ended else None


def no_room(state: State, event: Message, max_payload: int) -> NotApplicable | None:
    """Say which limit a signal or an update is over, if it is over one."""
    size = len(event.payload)
    if size > max_payload:
        return MailboxFull(f"{event.name} has {size} bytes, over {max_payload}")
    mail = state.mail
    if mail is None:
        return None
    if mail.came >= MAX_MESSAGES:
        return MailboxFull(f"the saga's run was sent {MAX_MESSAGES} signals and updates, which is the most")
    if isinstance(event, Updated):
        return None
    if mail.count >= MAX_WAITING:
        return MailboxFull(f"{mail.count} signals wait for the saga, which is the most")
    if mail.size + size > MAX_WAITING_BYTES:
        return MailboxFull(f"the signals that wait for the saga have {mail.size} bytes")
    return None


def _foreign(defs: Definitions, event: Message) -> NotApplicable | None:
    """Refuse a payload in a schema that nobody has published: nobody could ever read it."""
    if event.json:
        return None
    try:
        writer = schema_id(event.payload)
    except DecodeError as error:
        return SignalRefused(f"{event.name}: {error.message}")
    if defs.schemas.get(writer) is None:
        return SignalRefused(f"{event.name}: its schema {writer} isn't published")
    return None


def _undeclared(defs: Definitions, state: State, event: Signalled, guard: Guard) -> NotApplicable | None:
    """Hold a signal against what the saga declares, if it declares any."""
    definition = defs.sagas.get((state.name, state.version))
    if definition is not None and is_awaited(event.name):
        codec = definition.awaits.get(parts(event.name)[0])
        if codec is None:
            return SignalRefused(f"saga {state.name} awaits no {said(event.name)}")
    elif definition is None or definition.signals is None:
        return None
    elif (codec := definition.signals.get(event.name)) is None:
        names = ", ".join(sorted(definition.signals)) or "none"
        return SignalRefused(f"saga {state.name} declares no signal {event.name}; it declares {names}")
    try:
        guard(lambda sent: fit(codec, sent, json=event.json, schemas=defs.schemas), event.payload)
    except (KasagaError, Interrupt) as error:
        return SignalRefused(_cut(f"{said(event.name)}: {words(error)}"))
    return None


def _invalid(defs: Definitions, run: Run, event: Updated, guard: Guard) -> NotApplicable | None:
    """Let the saga's own validator look at an update, in code that is brought back if need be."""
    state = run.state
    if state.parked or not state.begun_at:
        return UpdateRefused(_cut(f"the saga is STUCK, its code can't go on: {state.reason}"))
    if state.renews:
        return UpdateRefused("the saga is about to go on as a new run: send it again")
    try:
        driver = run.live(defs, guard)
    except SagaCodeError as error:
        return UpdateRefused(_cut(f"the saga's code can't go on: {error.message}"))
    handlers = driver.host.handlers or {}
    handler = handlers.get(event.name)
    if handler is None:
        names = ", ".join(sorted(handlers)) or "none"
        return UpdateRefused(f"the saga handles no update {event.name}; it handles {names}")
    host = driver.host
    before = host.detach(driver.root)

    def check(payload: bytes) -> None:
        handler.check(payload, json=event.json, schemas=defs.schemas)

    try:
        guard(partial(driver.root.run, check), event.payload)
    except BaseException as error:  # noqa: BLE001 - the author's validator: whatever it raises says no
        return UpdateRefused(_cut(words(error) or type(error).__name__))
    finally:
        host.attached = not before
    return None


def note(turn: Turn, event: Message) -> None:
    """Take in what was sent. A signal is in the mail already, by its event alone."""
    if isinstance(event, Updated):
        mail = turn.state.mail
        turn.add(Accept(f"u{mail.updated + 1 if mail is not None else 1}"))


def take(turn: Turn) -> bool:
    """Give one signal to the code, or set it aside; say whether there was one to be given."""
    state, mail = turn.state, turn.state.mail
    assert mail is not None
    name = next((name for name in mail.waiting if name in mail.listening), None)
    if name is None or state.parked:
        return False
    step, signal = next(iter(mail.listening[name].values())), mail.waiting[name][0]
    try:
        driver = turn.driver()
    except SagaCodeError as error:
        turn.park(error)
        return False
    try:
        payload = driver.fit(step.path, signal)
    except KasagaError as error:
        turn.add(Drop(name, signal.signal_id, error.code, _cut(words(error))))
        return True
    except BaseException as error:  # noqa: BLE001 - the author's model: it ends or stops the process
        turn.park(driver.broken(error))
        return False
    turn.add(Take(step.path, signal.signal_id, payload))
    return True


def ask(defs: Definitions, run: Run, name: str, guard: Guard) -> bytes:
    """Answer a query, as JSON text, from the saga's code; changes nothing. Raises QueryFailed."""
    state = run.state
    if not state.begun_at:
        raise QueryFailed("the saga's code hasn't begun")
    try:
        driver = run.live(defs, guard)
    except SagaCodeError as error:
        raise QueryFailed(_cut(f"the saga's code can't be brought back: {error.message}")) from error
    queries = driver.host.queries or {}
    function = queries.get(name)
    before = driver.host.detach(driver.root)
    try:
        if function is None:
            names = ", ".join(sorted(queries)) or "none"
            raise QueryFailed(f"the saga answers no query {name}; it answers {names}")
        answer: bytes = guard(partial(driver.root.run, _call), function)
    except QueryFailed:
        raise
    except BaseException as error:  # noqa: BLE001 - the author's function
        said = f"query {name} raised {type(error).__name__}: {words(error)}"
        raise QueryFailed(_cut(said)) from None
    finally:
        driver.host.attached = not before
        if over(state) is not None or state.parked:
            run.evict()
    if len(answer) > defs.max_payload:
        raise QueryFailed(f"the answer of query {name} has {len(answer)} bytes, over {defs.max_payload}")
    return answer


def _call(function: Callable[[], bytes]) -> bytes:
    return function()


def _cut(text: str) -> str:
    return clean_text(text, MAX_REASON)
