"""The SQL of `sql/*.sql`, by name.

Station: read once at import. A file holds statements; each begins with a line `-- name: type type …` that
names it and the types of its parameters, further comment lines may follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from kasaga.store.encode import Encoder, type_of

_HEAD = re.compile(r"^-- (?P<name>[a-z_]+):(?P<types>[a-z0-9\[\] ]*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, ready to be sent."""

    name: bytes
    """Its name in the file, also of the prepared statement."""
    sent: str
    """The crash point when it is sent and not answered: `store.sent.<name>`."""
    sql: bytes
    oids: list[int]
    encoders: tuple[Encoder, ...]

    @property
    def formats(self) -> list[int]:
        """Of its parameters: all binary. A list, like the oids: psycopg before 3.3 takes nothing else."""
        return [1] * len(self.oids)

    def bind(self, *values: object) -> Call:
        """Encode parameters; raises one of `encode.UNENCODABLE` for those that can't be."""
        if len(values) != len(self.encoders):
            raise LookupError(
                f"{self.name.decode()} takes {len(self.encoders)} parameters, not {len(values)}"
            )
        return Call(
            self,
            [
                None if value is None else encode(value)
                for encode, value in zip(self.encoders, values, strict=True)
            ],
        )


@dataclass(frozen=True, slots=True)
class Call:
    """A statement with its encoded parameters."""

    statement: Statement
    params: list[bytes | None]


def read_statements(name: str) -> Mapping[str, Statement]:
    """Return the statements of `sql/<name>.sql` by their names."""
    text = files("kasaga.store").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    statements: dict[str, Statement] = {}
    for head, end in zip(heads, ends, strict=True):
        types = [type_of(word) for word in head["types"].split()]
        statements[head["name"]] = Statement(
            name=f"kasaga_{head['name']}".encode(),
            sent=f"store.sent.{head['name']}",
            sql=text[head.end() : end].strip().encode(),
            oids=[oid for oid, _ in types],
            encoders=tuple(encoder for _, encoder in types),
        )
    return statements
