"""Errors of the client, each with a stable code and a remedy.

KasagaError
├── ClientError                never raised itself
│   ├── StartUnconfirmed       KSG-501  Kafka didn't say in time that it has the start
│   ├── RejectedStart          KSG-502  the id belongs to a saga with another name or input
│   ├── ResultTimeout          KSG-503  the saga hasn't ended in time; it goes on
│   ├── UnknownSaga            KSG-504  there is no saga with this id
│   ├── NoAnswer               KSG-505  no orchestrator answered in time
│   ├── ClientClosed           KSG-506  the client isn't open
│   ├── NoTopics               KSG-507  the namespace's topics don't exist
│   ├── BadRequest             KSG-508  an id, an input or an action can't be sent as it is
│   └── ResultForgotten        KSG-512  the saga was completed, and purged since
└── SagaEndedBadly             never raised itself
    ├── SagaCompensated        KSG-510  the saga ended undone
    ├── SagaStuck              KSG-511  the saga needs a person
    └── SagaWasTerminated      KSG-513  somebody ended the saga as it was
"""

from __future__ import annotations

from kasaga_wire.errors import KasagaError


class ClientError(KasagaError):
    """What the client raises by itself; never raised itself."""

    code = "KSG-500"


class StartUnconfirmed(ClientError):
    """Whether the saga starts isn't known."""

    code = "KSG-501"
    default_remedy = "Start it again with the same id and input: it runs once, whatever became of the first"


class RejectedStart(ClientError):
    """The id belongs to another saga, which goes on untouched."""

    code = "KSG-502"
    default_remedy = "Use another id; or the same name and input, which gives you the saga that exists"


class ResultTimeout(ClientError):
    """The saga hasn't ended in time. It goes on: ask again."""

    code = "KSG-503"
    default_remedy = "Ask again, from any process: `client.handle(saga, id).result()`, `kasaga describe`"


class UnknownSaga(ClientError):
    """No saga of this namespace has the id."""

    code = "KSG-504"
    default_remedy = (
        "Look at the id, the namespace and the topic prefix; ended sagas are forgotten after a time"
    )


class NoAnswer(ClientError):
    """No orchestrator answered in time. The action may still be carried out, once."""

    code = "KSG-505"
    default_remedy = "Is an orchestrator running? `kasaga list` shows whether the saga moves"

    def __init__(self, message: str, *, sent: bool = True, action_id: str = "", remedy: str = "") -> None:
        """Keep whether Kafka has the question, and its id: with the same one it is carried out once."""
        super().__init__(message, remedy=remedy)
        self.sent = sent
        self.action_id = action_id


class ClientClosed(ClientError):
    """The client was used before `async with`, or after it."""

    code = "KSG-506"
    default_remedy = "Write `async with Client(namespace) as client:` and use it inside"


class NoTopics(ClientError):
    """The namespace's topics don't exist in this Kafka."""

    code = "KSG-507"
    default_remedy = "Start the orchestrator, which makes them; look at the namespace and the topic prefix"


class BadRequest(ClientError):
    """An id, an input or an action can't be sent as it is."""

    code = "KSG-508"


class ResultForgotten(ClientError):
    """The saga was completed; only that is remembered of it."""

    code = "KSG-512"
    default_remedy = "Read the result soon after the end, or let the saga's last step keep it"


class SagaEndedBadly(KasagaError):
    """The saga has no result; never raised itself. `step` is the path of the step it is about, or empty."""

    code = "KSG-509"

    def __init__(
        self, message: str, *, saga_id: str, reason: str, step: str, why: str, remedy: str = ""
    ) -> None:
        """Keep what the saga's owner said; `why` is the reason's own code."""
        super().__init__(message, remedy=remedy)
        self.saga_id = saga_id
        self.reason = reason
        self.step = step
        self.why = why


class SagaCompensated(SagaEndedBadly):
    """The saga ended, and what it had done is undone."""

    code = "KSG-510"


class SagaStuck(SagaEndedBadly):
    """The saga can't go on by itself; a person must act. It isn't over: ask again afterwards."""

    code = "KSG-511"


class SagaWasTerminated(SagaEndedBadly):
    """Somebody ended the saga as it was: nothing is undone. `reason` says who, why, and what that left."""

    code = "KSG-513"
    default_remedy = "Undo by hand what it left, if it mustn't stay: `kasaga describe` lists it"
