"""What a record carries that is set aside: the headers of a dead letter.

Station: whoever refuses a record for good puts it on the dead letters' topic with these.
"""

from __future__ import annotations

from datetime import datetime

from .headers import RawHeaders, rfc3339
from .nodes import clean_text

MAX_DEAD_LETTER_REASON_CHARACTERS = 1_000


def dead_letter_headers(
    original: RawHeaders | None,
    *,
    topic: str,
    partition: int,
    offset: int,
    code: str,
    reason: str,
    by: str,
    time: datetime,
) -> list[tuple[str, bytes | None]]:
    """The headers of a dead letter: where it lay, who refused it and why, and then its own, untouched.

    Key and value stay as they were, so that redriving is producing it again without the `kasaga_dlq_*`
    headers.
    """
    ours: list[tuple[str, bytes | None]] = [
        ("kasaga_dlq_code", code.encode()),
        ("kasaga_dlq_reason", clean_text(reason, MAX_DEAD_LETTER_REASON_CHARACTERS).encode()),
        ("kasaga_dlq_topic", topic.encode()),
        ("kasaga_dlq_partition", str(partition).encode()),
        ("kasaga_dlq_offset", str(offset).encode()),
        ("kasaga_dlq_time", rfc3339(time).encode()),
        ("kasaga_dlq_by", by.encode()),
    ]
    return ours + [header for header in original or () if not header[0].startswith("kasaga_dlq_")]
