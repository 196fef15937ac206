"""A node of the kvstore as an application of PySyncObj's own has it: FileJournal and dump.

``python switching_kvstore.py plain|raftwal PROMISES ARGUMENTS``: the arguments are those of
``examples.kvstore``; ``journal`` and ``dump`` are in the data directory.  With ``raftwal``,
``install(migrate="auto")`` is called first, and nothing else differs.  The file PROMISES and
the key EVERYTHING are those of ``witnessed_kvstore.py``.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from promising_node import promise_log, write_down
from pysyncobj import SyncObj
from pysyncobj.node import Node
from pysyncobj.transport import TCPTransport
from witnessed_kvstore import EVERYTHING

import examples.kvstore.__main__ as kvstore
from examples.kvstore.store import KeyValues, _await, node_configuration
from raftwal.pysyncobj import StorageSettings, install

_ROLES = ("follower", "candidate", "leader")
JOURNAL, DUMP = "journal", "dump"


class SwitchingKVStore(SyncObj):
    """What `examples.kvstore.store.KVStore` is, without a word of raftwal."""

    # What the API asks first.  A node that raftwal stops refuses by itself.
    storage_failure = None

    def __init__(self, options: Any) -> None:
        self._state = KeyValues()
        conf = node_configuration(options.snapshot_entries)
        conf.journalFile = str(Path(options.data_dir) / JOURNAL)
        conf.fullDumpFile = str(Path(options.data_dir) / DUMP)
        super().__init__(options.listen, options.partner, conf, consumers=[self._state])

    def get(self, key: str) -> bytes | None:
        if key != EVERYTHING:
            return self._state.values.get(key)
        values = dict(self._state.values)
        return json.dumps({key: value.decode() for key, value in values.items()}).encode()

    def put(self, key: str, value: bytes, timeout: float) -> None:
        _await(self._state.put, timeout, key, value)

    def delete(self, key: str, timeout: float) -> None:
        _await(self._state.delete, timeout, key)

    def healthy(self) -> str | None:
        return self.getStatus().get("storage_failure")

    def ready(self) -> str | None:
        return None if self.isReady() and self._getLeader() is not None else "not yet"

    def status(self) -> dict[str, Any]:
        status = {
            name: value.id if isinstance(value, Node) else value
            for name, value in self.getStatus().items()
        }
        return {**status, "role": _ROLES[status["state"]]}


def main() -> int:
    role, promises, *arguments = sys.argv[1:]
    log = promise_log(promises)
    send = TCPTransport.send

    def send_and_write_down(transport, node, message):
        write_down(log, transport, node, message)
        return send(transport, node, message)

    # The send barrier's transport derives from this one: what it holds back is not sent.
    TCPTransport.send = send_and_write_down
    kvstore._configure_logging()
    options = kvstore._parser().parse_args(arguments)
    if role == "raftwal":
        install(StorageSettings(segment_bytes=options.segment_bytes), migrate="auto")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Path(options.data_dir).mkdir(exist_ok=True)
    store = SwitchingKVStore(options)
    try:
        store.waitBinded()
        kvstore._serve(store, options.http, options.write_timeout)
    finally:
        store.destroy_synchronous()
    return 0


if __name__ == "__main__":
    sys.exit(main())
