"""Errors of the command line, each with a stable code and a remedy.

KasagaError
└── CommandError         KSG-520  never raised itself
    ├── BadTarget        KSG-521  module:app or a service can't be loaded, or has no such saga
    ├── NoDatabase       KSG-522  the command reads the database, and none is named
    ├── NoNamespace      KSG-523  the command sends records, and doesn't know to which namespace
    ├── BadInput         KSG-524  what was typed doesn't fit the saga, or can't be read
    ├── NotConfirmed     KSG-525  a bulk action without --yes, and nobody to ask
    ├── DevFailed        KSG-526  a process of `kasaga dev` can't run
    ├── NoBrokers        KSG-527  the command sends records, and no brokers are named
    ├── NotInstalled     KSG-528  the command needs an extra that isn't installed
    └── Unexpected       KSG-599  a bug in Kasaga
"""

from __future__ import annotations

from kasaga_wire.errors import KasagaError


class CommandError(KasagaError):
    """What the command line raises by itself; never raised itself."""

    code = "KSG-520"


class BadTarget(CommandError):
    """`module:app` or a service's module can't be loaded, or the App has no such saga."""

    code = "KSG-521"


class NoDatabase(CommandError):
    """The command reads the orchestrator's database, and none is named."""

    code = "KSG-522"
    default_remedy = "Set KASAGA_DATABASE_URL, pass --database-url, or run `kasaga dev` in this folder"


class NoBrokers(CommandError):
    """The command sends records, and no brokers are named."""

    code = "KSG-527"
    default_remedy = "Set KASAGA_KAFKA_BOOTSTRAP_SERVERS, pass --kafka, or run `kasaga dev` in this folder"


class NoNamespace(CommandError):
    """The command sends records, and doesn't know to which namespace."""

    code = "KSG-523"
    default_remedy = "Set KASAGA_NAMESPACE or KASAGA_DATABASE_URL, or pass --namespace"


class BadInput(CommandError):
    """What was typed doesn't fit, or can't be read."""

    code = "KSG-524"


class NotConfirmed(CommandError):
    """A bulk action without --yes, and nobody to ask."""

    code = "KSG-525"
    default_remedy = "Look at it with --dry-run, then pass --yes"


class DevFailed(CommandError):
    """A process of `kasaga dev` can't run."""

    code = "KSG-526"


class NotInstalled(CommandError):
    """The command needs packages of an extra that isn't installed."""

    code = "KSG-528"
    default_remedy = "pip install 'kasaga[api]'"


class Unexpected(CommandError):
    """A bug in Kasaga."""

    code = "KSG-599"
    default_remedy = "Report it with what KASAGA_DEBUG=1 shows"
