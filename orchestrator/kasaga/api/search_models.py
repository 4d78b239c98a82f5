"""What the API takes and gives of search attributes and queries."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ..search.language import MAX_CHARACTERS

ATTRIBUTES: dict[str, Any] = {"customer": "c-7", "amount": 120}
"""For examples."""

TELLING = """What it can be searched by. Of a saga that exists they stay as they are."""


class JsonTime(BaseModel):
    """A time: JSON has none of its own."""

    model_config = ConfigDict(extra="forbid")

    time: str = Field(description="RFC 3339.", examples=["2026-11-23T10:00:00Z"], max_length=40)


JsonAttributes = dict[str, str | bool | int | float | list[str] | JsonTime]
"""By name."""

Query = Annotated[
    str,
    Field(
        max_length=MAX_CHARACTERS,
        description="A query in the language of the guide's page searching.md. With other filters, all hold.",
        examples=['attr.customer = "c-7" and attr.amount >= 100'],
    ),
]
