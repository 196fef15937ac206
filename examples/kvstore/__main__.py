"""The command line: one node, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

import structlog
import waitress
from pysyncobj.syncobj import SyncObjException

from examples.kvstore.api import make_app
from examples.kvstore.store import MAX_VALUE_BYTES, KVStore
from raftwal import RaftwalError
from raftwal.pysyncobj import StorageSettings

THREADS = 24
CONCURRENT_WRITES = 16

DESCRIPTION = """\
One node of a replicated key-value store.  Start three, each with the addresses of the
other two, and any of them answers:

  curl -X PUT --data-binary VALUE http://HOST:PORT/kv/KEY    answered once committed
  curl http://HOST:PORT/kv/KEY                               what this node has applied
  curl -X DELETE http://HOST:PORT/kv/KEY
  curl http://HOST:PORT/status

and /metrics, /healthz and /readyz.  Stop it with SIGTERM, or with SIGKILL: an
answered write stays."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    _configure_logging()
    # waitress stops at SystemExit, answers what is under way, and returns.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        store = KVStore(
            options.listen,
            options.partner,
            options.data_dir,
            snapshot_entries=options.snapshot_entries,
            settings=StorageSettings(
                cluster_name=options.cluster_name,
                segment_bytes=options.segment_bytes,
                on_storage_failure=_exit if options.exit_on_storage_failure else None,
            ),
        )
    except RaftwalError as error:
        return _failed(str(error))
    try:
        store.waitBinded()
        _serve(store, options.http, options.write_timeout)
    except SyncObjException:
        return _failed(f"cannot listen on {options.listen}")
    except OSError as error:
        return _failed(f"cannot listen on {options.http}: {error.strerror or error}")
    finally:
        store.destroy_synchronous()
    return 0


def _serve(store: KVStore, address: str, write_timeout: float) -> None:
    host, port = address.rsplit(":", 1)
    server = waitress.create_server(
        make_app(store, write_timeout=write_timeout, concurrent_writes=CONCURRENT_WRITES),
        host=host.strip("[]"),
        port=int(port),
        threads=THREADS,
        # Read before the application can refuse it.  (waitress means "less than".)
        max_request_body_size=MAX_VALUE_BYTES + 1,
    )
    logging.getLogger("kvstore").info("event=serving http=%s", address)
    server.run()


def _exit(error: BaseException) -> None:
    # Nothing is left to close in good order: the storage refuses every call.
    logging.getLogger("kvstore").critical("event=exit reason=%r", str(error))
    os._exit(1)


def _failed(reason: str) -> int:
    print(f"kvstore: {reason}", file=sys.stderr)
    return 1


def _configure_logging() -> None:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
    )
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["event"]),
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.kvstore",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    address, count = _address, _positive
    add = parser.add_argument
    add("--listen", type=address, required=True, metavar="HOST:PORT", help="its Raft address")
    add(
        "--partner",
        type=address,
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="the Raft address of another node; once for each",
    )
    add("--http", type=address, required=True, metavar="HOST:PORT", help="where it serves HTTP")
    add("--data-dir", required=True, metavar="DIR", help="its log and snapshots; made if absent")
    add("--cluster-name", default="kvstore", metavar="NAME", help="kept in the log and compared")
    add(
        "--snapshot-entries",
        type=count,
        default=5000,
        metavar="N",
        help="snapshot when the log has more entries than this (default: %(default)s)",
    )
    add(
        "--segment-bytes",
        type=count,
        default=StorageSettings().segment_bytes,
        metavar="N",
        help="size at which a new log file is begun (default: %(default)s)",
    )
    add(
        "--write-timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long a write may wait to be committed (default: %(default)g)",
    )
    add(
        "--exit-on-storage-failure",
        action="store_true",
        help="exit after a failed write or sync, instead of standing still with /healthz at 503",
    )
    return parser


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"not an address of the form HOST:PORT: {text!r}")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"not a time in seconds: {text!r}")
    return seconds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"not a number above 1: {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
