"""A node of the kvstore that writes down what leaves it, and every call of its hook.

``python witnessed_kvstore.py PROMISES ARGUMENTS``: the arguments are those of
``examples.kvstore``.  The file PROMISES gets a line for each promise, before the message is
given to the socket (see ``promising_node.py``), and one for each call of
``on_storage_failure``; the node then stands still, as one without a hook does.  The key
EVERYTHING reads all that the node has applied.
"""

from __future__ import annotations

import json
import sys

from promising_node import promise_log, write_down
from pysyncobj.transport import TCPTransport

import examples.kvstore.__main__ as kvstore
from examples.kvstore.store import KVStore

EVERYTHING = "everything/at/once"


def main() -> int:
    promises, *arguments = sys.argv[1:]
    log = promise_log(promises)
    send, get = TCPTransport.send, KVStore.get

    def send_and_write_down(transport, node, message):
        write_down(log, transport, node, message)
        return send(transport, node, message)

    def get_one_or_all(store, key):
        if key != EVERYTHING:
            return get(store, key)
        values = dict(store._state.values)
        return json.dumps({key: value.decode() for key, value in values.items()}).encode()

    # The send barrier's transport derives from this one: what it holds back is not sent.
    TCPTransport.send = send_and_write_down
    KVStore.get = get_one_or_all
    kvstore._exit = lambda error: log(hook=str(error))
    return kvstore.main([*arguments, "--exit-on-storage-failure"])


if __name__ == "__main__":
    sys.exit(main())
