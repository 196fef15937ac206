"""What every peer's program is asked, and what it answers.

A program is started anew for each case, as ``PROGRAM --peer=NAME --do=TASK --NAME=VALUE...``
with the fields of `Request`; it does that once and prints one JSON object.  For a case that
it has no figure for, that is ``{"cannot": "REASON"}``.  Else it has, times in seconds:

- ``save``: appends ``count`` entries in saves of ``batch``, and says ``seconds`` and ``cpu``
  (user and system) of the saves alone, ``entries`` and ``saves`` done, ``p50``, ``p99`` and
  ``longest`` of one save, ``stopped`` if the time was up before the entries were.  With
  ``threads``, each saves one entry at a time, and a save's time includes its wait for others.
- ``read``: opens the log and holds all of its entries: ``seconds``, ``cpu``, ``entries``,
  their ``bytes``, and a ``digest``.  ``replay`` is the same with no entry held.
- ``checksum``: CRC-32C over pieces of ``size``: ``seconds`` and ``bytes``.

The first three say what memory the process held right before, ``rss_before``, and at most
meanwhile, ``rss_peak``, in bytes.  All say ``versions``.  Starting the process, making the
entries, making or opening the log to append, and closing it are not in the times.

Entry ``i`` has term 1 and ``size`` bytes of the file ``data`` from `data_offset` on.  A
program makes up to `MOST_IN_CHUNK` of them, or `MOST_BYTES_IN_CHUNK`, ahead of saving them.
"""

from __future__ import annotations

import random
import zlib
from typing import NamedTuple

MOST_IN_CHUNK = 65_536
MOST_BYTES_IN_CHUNK = 16 << 20
DATA_BYTES = 1 << 20
_DATA_STRIDE = 4093
_DIGEST_EVERY = 997


class Request(NamedTuple):
    """One case for one peer."""

    peer: str
    do: str
    dir: str
    data: str
    size: int = 128
    batch: int = 1
    count: int = 1  # type: ignore[assignment]  # hides tuple.count
    sync: bool = True
    threads: int = 1
    seconds: float = 60.0

    def words(self) -> list[str]:
        """As arguments of a program."""
        return [f"--{name}={str(value).lower() if value is True or value is False else value}"
                for name, value in self._asdict().items()]  # fmt: skip


def made_data() -> bytes:
    """The bytes that entries are taken from: the same in every run, and not compressible."""
    return random.Random(6).randbytes(DATA_BYTES)


def data_offset(index: int, block_bytes: int, size: int) -> int:
    """Where the data of the entry at ``index`` begins."""
    return index * _DATA_STRIDE % (block_bytes - size)


def is_digested(index: int) -> bool:
    """Whether the entry's data is in the digest: enough to tell another log, too few to cost."""
    return index % _DIGEST_EVERY == 1


def digest_of(block: bytes, count: int, size: int) -> int:
    """What a program must answer that read ``count`` entries."""
    digest = 0
    for index in range(1, count + 1, _DIGEST_EVERY):
        offset = data_offset(index, len(block), size)
        digest = zlib.crc32(block[offset : offset + size], digest)
    return digest
