"""The participants of a run: the user's own handlers, fakes for the rest, all behind the real inbox.

Station: the only module of the orchestrator's package that knows the participants' one, since a saga is
tested together with the services that take part in it. `delivery.py` hands records in and gets replies.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeGuard

from kasaga_participant import Deferred, Participant, ParticipantError, Refused, RetryableError
from kasaga_participant.calls import Calls
from kasaga_participant.jobs import Rejected
from kasaga_participant.virtual import Death, Died, Handled, Loop, Virtual, make_calls
from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import CommandSpec, Contract, command_of, contract_of
from kasaga_wire.errors import ContractError

from ..saga import Saga
from .values import NoExample, example

__all__ = [
    "Death",
    "Died",
    "Fakes",
    "Handled",
    "Later",
    "ParticipantError",
    "Promise",
    "Rejected",
    "Served",
    "Services",
    "Virtual",
    "failure",
    "find_contracts",
    "refusal",
]

Served = Participant | type[Any]
"""An app with its handlers, or a service class whose methods are the handlers of a contract."""
Fakes = Mapping[Callable[..., Any], "Callable[..., Any] | Later"]
"""By command (`Payments.charge`): what stands in for its handler."""


@dataclass(frozen=True, slots=True)
class Later:
    """A fake of a command that is accepted at once, and answered later.

    Attributes:
        answer: a function of the input, that gives the result.
        after: seconds of the virtual clock until then.
        heartbeat: seconds in which a heartbeat must come; two do. None: none is promised.
        act: what the handler does when it accepts: a function of the input and the transaction, if given.
    """

    answer: Callable[[Any], Any]
    after: float = 600.0
    heartbeat: float | None = None
    act: Callable[[Any, Any], object] | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """What a command that was deferred will be answered with: `result`, by `token`."""

    token: str
    result: bytes
    later: Later


def find_contracts(function: Callable[..., Any]) -> tuple[dict[str, Contract], list[Saga[Any, Any]]]:
    """The contracts and the other sagas that a saga's code names, in its globals and around it.

    And those that its helpers and these sagas do.
    """
    found: dict[str, Contract] = {}
    sagas: list[Saga[Any, Any]] = []
    seen: set[object] = set()
    todo: list[object] = [function]
    while todo:
        each = todo.pop()
        if not isinstance(each, FunctionType) or each in seen:
            continue
        seen.add(each)
        names = _names(each.__code__)
        values = [each.__globals__[name] for name in names if name in each.__globals__]
        values += [cell.cell_contents for cell in each.__closure__ or () if _filled(cell)]
        for value in list(values):
            if isinstance(value, ModuleType):
                values += [getattr(value, name) for name in names if hasattr(value, name)]
        for value in values:
            if isinstance(value, type) and "__kasaga_participant__" in vars(value):
                contract = contract_of(value)
                found[contract.name] = contract
            elif _is_saga(value) and value not in sagas:
                sagas.append(value)
                todo.append(inspect.unwrap(value.function))
        todo += values
    return found, sagas


def _is_saga(value: object) -> TypeGuard[Saga[Any, Any]]:
    return isinstance(value, Saga)


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names |= _names(const)
    return names


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


class Services:
    """The participants of a case; `begin` makes their processes and databases for one run."""

    def __init__(
        self,
        contracts: Iterable[Contract],
        schemas: Schemas,
        *,
        participants: Iterable[Served] | Callable[..., Iterable[Served]],
        fakes: Fakes | Callable[..., Fakes],
        data: Callable[[], object] | None,
    ) -> None:
        self._contracts = {contract.name: contract for contract in contracts}
        self._participants, self._fakes, self._data = participants, fakes, data
        self._anew = callable(participants) or callable(fakes)
        self._calls: Calls = make_calls(schemas)
        self._loop = Loop()
        self._apps: list[Participant] = []
        self.promises: dict[str, Promise] = {}
        """Of one run: by command id, those that are answered later."""
        self.problems: list[NoExample] = []
        """Fakes that were called and couldn't be made."""

    def close(self) -> None:
        """End the event loop of the handlers."""
        self._loop.close()

    def begin(self, clock: Callable[[], datetime]) -> tuple[Mapping[str, Virtual], object]:
        """Make the processes of one run: by contract, and the data that they share.

        Raises ContractError and RegistrationError where what was given doesn't fit together, TypeError where
        the data is nothing that could be rolled back.
        """
        self.promises.clear()
        data = self._data() if self._data is not None else None
        if data is not None and not hasattr(data, "__dict__"):
            name = type(data).__name__
            raise TypeError(
                f"data= makes a {name}, whose attributes can't be taken back: use a class of yours"
            )
        if self._anew or not self._apps:
            self._apps = self._make_apps(data)
        found: dict[str, Virtual] = {}
        for app in self._apps:
            made = Virtual(app, calls=self._calls, loop=self._loop, clock=clock, connection=data)
            found.update(dict.fromkeys(made.contracts, made))
        return found, data

    def _make_apps(self, data: object) -> list[Participant]:
        arguments = () if self._data is None else (data,)
        given = self._participants(*arguments) if callable(self._participants) else self._participants
        fakes = self._fakes(*arguments) if callable(self._fakes) else self._fakes
        apps = [_app(each) for each in given]
        served = {name for app in apps for name in app.registries}
        by_type = {command_of(command).type: fake for command, fake in fakes.items()}
        for type_ in by_type:
            name = type_.partition(".")[0]
            if name in served:
                raise ContractError(f"the fake of {type_} stands beside a participant that handles it")
            if name not in self._contracts:
                raise ContractError(f"the saga doesn't use {name!r}, which {type_} belongs to")
        for contract in self._contracts.values():
            if contract.name not in served:
                apps.append(self._faked(contract, by_type))
        return apps

    def _faked(self, contract: Contract, fakes: Mapping[str, Callable[..., Any] | Later]) -> Participant:
        app = Participant(contract.name)
        for spec in contract.by_type.values():
            wanted = 1 if isinstance(spec, CommandSpec) else 2
            fake = fakes.get(spec.type)
            if isinstance(fake, Later):
                if not isinstance(spec, CommandSpec):
                    raise ContractError(f"{spec.type} is a compensation: it can't be answered later")
                handler = self._promising(spec, fake)
            elif fake is not None:
                handler = _adapted(fake, wanted, spec.type)
            elif isinstance(spec, CommandSpec):
                handler = self._answering(spec)
            else:
                handler = _undoing
            method: Any = getattr(contract.cls, spec.name)
            app.handle(method)(handler)
        return app

    def _promising(self, spec: CommandSpec, later: Later) -> Callable[..., Any]:
        def accept(value: Any, tx: Any) -> Any:
            beat = timedelta(seconds=later.heartbeat) if later.heartbeat is not None else None
            deferred = Deferred(tx, heartbeat=beat)
            if later.act is not None:
                later.act(value, tx)
            result = spec.result.encode(later.answer(value))
            self.promises[deferred.command_id] = Promise(deferred.token, result, later)
            return deferred

        return accept

    def _answering(self, spec: CommandSpec) -> Callable[..., Any]:
        made: list[Any] = []

        def answer(value: Any, tx: Any) -> Any:
            if not made:
                try:
                    made.append(example(spec.result, f"the fake of {spec.type}"))
                except NoExample as error:
                    self.problems.append(error)
                    raise
            return made[0]

        return answer


def refusal() -> Exception:
    """What a handler raises to say no."""
    return Refused("the test has it refused", code="TEST")


def failure() -> Exception:
    """What a handler raises when it doesn't work."""
    return RetryableError("the test has it fail")


def _app(served: Served) -> Participant:
    if isinstance(served, Participant):
        return served
    app = Participant(getattr(served, "__name__", "participant"))
    app.serve(contract_of(served).cls, served)
    return app


def _undoing(value: Any, result: Any, tx: Any) -> None:
    """The fake of a compensation: it succeeds."""


def _adapted(fake: Callable[..., Any], wanted: int, type_: str) -> Callable[..., Any]:
    """A handler of a fake that may take the transaction too, or not."""
    for count in (wanted, wanted + 1):
        try:
            inspect.signature(fake).bind(*range(count))
        except TypeError:
            continue
        break
    else:
        what = "the command's input" if wanted == 1 else "the command's input and its result"
        raise ContractError(f"the fake of {type_} must take {what}, and may take the transaction after that")
    if inspect.iscoroutinefunction(fake):
        asynchronous: Callable[..., Coroutine[Any, Any, Any]] = fake

        async def call(*arguments: Any) -> Any:
            return await asynchronous(*arguments[:count])

        return call
    return lambda *arguments: fake(*arguments[:count])
