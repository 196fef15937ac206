"""The command line: one node under uvicorn, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

import uvicorn

from examples.async_kvstore.app import KVStore, make_app


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn.error").addFilter(_shorten_traceback)
    failures: list[BaseException] = []

    def stop(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    app = make_app(
        lambda: KVStore(options.listen, options.partner, options.data_dir), on_storage_failure=stop
    )
    host, port = options.http.rsplit(":", 1)
    config = uvicorn.Config(
        app, host=host.strip("[]"), port=int(port), log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    # uvicorn stops in good order at either signal, and then raises it once more.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    server.run()
    return 1 if failures or not server.started else 0


def _shorten_traceback(record: logging.LogRecord) -> bool:
    """Starlette gives uvicorn the traceback of a start that failed, as text: keep the reason."""
    text = record.getMessage()
    if text.startswith("Traceback "):
        record.msg, record.args = text.strip().splitlines()[-1], None
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.async_kvstore",
        description="One node of a replicated key-value store: PUT, GET and DELETE /kv/KEY, "
        "and /healthz, /readyz and /metrics.  An answered write stays.",
    )
    add = parser.add_argument
    add("--listen", required=True, type=_address, metavar="HOST:PORT", help="its Raft address")
    add(
        "--partner",
        action="append",
        default=[],
        type=_address,
        metavar="HOST:PORT",
        help="the Raft address of another node; once for each",
    )
    add("--http", required=True, type=_address, metavar="HOST:PORT", help="where it serves HTTP")
    add("--data-dir", required=True, metavar="DIR", help="its log and snapshots; made if absent")
    return parser


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"not an address of the form HOST:PORT: {text!r}")
    return text


if __name__ == "__main__":
    sys.exit(main())
