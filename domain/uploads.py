"""Uploads in parts: their limits, and how one stands."""

from dataclasses import dataclass
from enum import StrEnum

#: Most bytes of one part, as OpenAI has it: the stock client cuts files into parts of this size.
PART_BYTES = 64 * 1024 * 1024
#: Parts of one upload, those counted that were sent twice.
MOST_PARTS = 10_000
#: A part whose answer was lost is sent again, and the stock client tries three times at most. All that arrives
#: for an upload may be so many times what it was said to hold.
MOST_TIMES = 3
#: An upload that is not completed by then goes, with its parts.
LIFE_S = 24 * 3600.0


class UploadStatus(StrEnum):
    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Completion:
    """What a sender asks for when all has arrived: these parts, in this order."""

    part_ids: tuple[str, ...]
    #: Of the whole, in lower-case hexadecimal digits; None asks for no comparison.
    md5: str | None
    key: str | None
    #: Equal for equal requests.
    body_hash: str
