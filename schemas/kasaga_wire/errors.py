"""Every error that the wire raises, each with a stable code and a remedy.

Station: the bottom. Everything of Kasaga imports this file, it imports nothing of ours.

    KasagaError
    ├── ContractError          KSG-101  a contract is declared in a way that can't work
    │   ├── UnsupportedType    KSG-102  an annotation has no lossless form in Avro
    │   ├── NameClash          KSG-103  two types claim one name in one schema
    │   └── SchemaCollision    KSG-104  two schemas claim one 31-bit id
    ├── CodecError
    │   ├── EncodeError        KSG-110  a value doesn't fit its schema without loss
    │   ├── DecodeError        KSG-111  bytes are not what they claim to be
    │   │   └── SchemaMismatch KSG-113  the writer's schema can't be read as the reader's
    │   ├── UnknownSchema      KSG-112  nobody has published this schema id yet: try again
    │   └── CannotOpen         KSG-114  a payload is encrypted, and this process hasn't the key
    │       └── ObjectUnreadable  KSG-115  a payload's object isn't there, was changed, or can't be asked for
    ├── EnvelopeError          KSG-120  a header is missing, malformed or too big
    ├── TopicNameError         KSG-130  a topic, namespace or prefix can't be a topic's name
    ├── LogSettingsError       KSG-150  no such log format or level
    ├── TracingSettingsError   KSG-151  one of OpenTelemetry's variables can't be followed
    ├── BadAttribute           KSG-152  a search attribute can't be kept
    ├── PayloadKeysInvalid     KSG-153  the keys for payloads can't be used
    ├── ObjectsInvalid         KSG-154  an address of objects, or its options, can't be used
    ├── ObjectsUnavailable     KSG-155  a place of objects doesn't do what it is asked
    └── KafkaFailure
        ├── TopicRefused       KSG-131  a topic's settings would lose records
        ├── TopicMismatch      KSG-132  a topic has other partitions than the namespace
        ├── SettingsError      KSG-140  a Kafka setting can't be used
        ├── QueueFull          KSG-141  the producer's queue is full: poll, then again
        ├── DeliveryError      KSG-142  a record was not acknowledged
        └── KafkaUnavailable   KSG-143  the brokers did not answer a question in time

The other rooms have their own files: 2xx the saga and the engine, 3xx the store and the loop, 4xx the
participant, 5xx the client and the command line.
"""

from __future__ import annotations

from typing import ClassVar


class KasagaError(Exception):
    """An error with a code that stays the same for ever, and what to do about it."""

    code: ClassVar[str] = "KSG-100"
    default_remedy: ClassVar[str] = ""
    """The remedy of every error of a class, where none is given with the message."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Keep the message and the remedy apart; `str()` joins them."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy or self.default_remedy

    def __str__(self) -> str:
        """All in one line: `KSG-101: what happened. Remedy: what to do`."""
        text = f"{self.code}: {_sentence(self.message)}"
        return f"{text} Remedy: {_sentence(self.remedy)}" if self.remedy else text


def _sentence(text: str) -> str:
    """With its full stop, unless it is a question."""
    return text if text.endswith("?") else f"{text.rstrip('.')}."


class ContractError(KasagaError):
    """A contract is declared in a way that can't work."""

    code = "KSG-101"


class UnsupportedType(ContractError):
    """An annotation has no lossless form in Avro; `path` names the field."""

    code = "KSG-102"

    def __init__(self, path: str, message: str, *, remedy: str) -> None:
        """Put the path in front of the message."""
        super().__init__(f"{path}: {message}", remedy=remedy)
        self.path = path


class NameClash(ContractError):
    """Two different types claim the same Avro name in one schema."""

    code = "KSG-103"


class SchemaCollision(ContractError):
    """Two different schemas have the same 31-bit id."""

    code = "KSG-104"


class CodecError(KasagaError):
    """What encoding and decoding raise; never raised itself."""

    code = "KSG-109"


class EncodeError(CodecError):
    """A value doesn't fit its schema without loss; `path` names the field."""

    code = "KSG-110"

    def __init__(self, path: str, message: str, *, remedy: str = "") -> None:
        """Put the path in front of the message."""
        super().__init__(f"{path}: {message}", remedy=remedy)
        self.path = path


class DecodeError(CodecError):
    """Bytes are cut off, too long, or hold a value that the model refuses."""

    code = "KSG-111"


class UnknownSchema(CodecError):
    """No schema with this id is known yet. Retryable: it may be published any moment."""

    code = "KSG-112"

    def __init__(self, schema_id: int) -> None:
        """Keep the id, so that the caller can look it up elsewhere."""
        super().__init__(
            f"no schema with the id {schema_id} is known",
            remedy="wait until its writer has published it on <namespace>.schemas, or publish it again",
        )
        self.schema_id = schema_id


class SchemaMismatch(DecodeError):
    """The writer's schema can't be read as the reader's."""

    code = "KSG-113"


class CannotOpen(CodecError):
    """A payload is encrypted, and this process hasn't the key, or another under its id: try again with it."""

    code = "KSG-114"

    def __init__(self, message: str, *, key: str, remedy: str = "") -> None:
        """`key`: its id."""
        super().__init__(message, remedy=remedy or f"give this process key {key} in KASAGA_PAYLOAD_KEYS")
        self.key = key


class ObjectUnreadable(CannotOpen):
    """A payload is an object, and that isn't there, was changed, or its store doesn't answer.

    `lasting`: asking the store again would change nothing.
    """

    code = "KSG-115"
    default_remedy = (
        "Look at the store that KASAGA_PAYLOAD_STORE_URL names. The step is tried again, and the payload "
        "written again with it"
    )

    def __init__(self, message: str, *, remedy: str = "", lasting: bool = True) -> None:
        """Keep whether it lasts."""
        super().__init__(message, key="", remedy=remedy or self.default_remedy)
        self.lasting = lasting


class EnvelopeError(KasagaError):
    """A header is missing, malformed or too big; `header` names it."""

    code = "KSG-120"

    def __init__(self, header: str, message: str, *, remedy: str = "") -> None:
        """Put the header's name in front of the message."""
        super().__init__(f"header {header}: {message}", remedy=remedy)
        self.header = header


class TopicNameError(KasagaError):
    """A topic, a namespace or a prefix can't be a topic's name."""

    code = "KSG-130"


class LogSettingsError(KasagaError):
    """No such log format or level."""

    code = "KSG-150"


class BadAttribute(KasagaError):
    """A search attribute has a name or a value that can't be kept; the message names it."""

    code = "KSG-152"
    default_remedy = "Send attributes as the message says"


class PayloadKeysInvalid(KasagaError):
    """The keys for payloads, or the size from which these are compressed, can't be used."""

    code = "KSG-153"
    default_remedy = "Set KASAGA_PAYLOAD_KEYS to id=key,… with 32 random bytes in base64 for each key"


class ObjectsInvalid(KasagaError):
    """An address of objects, or its options, can't be used. Options are not repeated: they may be secret."""

    code = "KSG-154"
    default_remedy = "Write a URL that fsspec knows: file:///var/archive, s3://bucket/folder"


class ObjectsUnavailable(KasagaError):
    """A folder or an object store doesn't answer, or refuses; nothing is known of what was being written."""

    code = "KSG-155"
    default_remedy = (
        "What writes tries again by itself. If it lasts, look at the address, its options and rights"
    )


class TracingSettingsError(KasagaError):
    """One of OpenTelemetry's variables asks for what there isn't."""

    code = "KSG-151"
    default_remedy = "Look at the OTEL_… variables"


class KafkaFailure(KasagaError):
    """What talking to Kafka raises; never raised itself."""

    code = "KSG-139"


class TopicRefused(KafkaFailure):
    """A topic's settings would lose records of ours."""

    code = "KSG-131"


class TopicMismatch(KafkaFailure):
    """A topic has fewer partitions than it must have."""

    code = "KSG-132"


class SettingsError(KafkaFailure):
    """A Kafka setting can't be used."""

    code = "KSG-140"


class QueueFull(KafkaFailure):
    """The producer's queue is full: poll, then produce again."""

    code = "KSG-141"


class DeliveryError(KafkaFailure):
    """A record was not acknowledged. `permanent`: the same record will fail again until somebody acts."""

    code = "KSG-142"

    def __init__(self, name: str, message: str, *, permanent: bool, fatal: bool = False) -> None:
        """Keep librdkafka's name of the error, such as `MSG_SIZE_TOO_LARGE`."""
        super().__init__(f"{name}: {message}")
        self.name = name
        self.permanent = permanent
        self.fatal = fatal


class KafkaUnavailable(KafkaFailure):
    """The brokers did not answer a question in time."""

    code = "KSG-143"

    leaderless: bool = False
    """A partition has no leader just now: a new topic's first second, or a broker that comes and goes."""
