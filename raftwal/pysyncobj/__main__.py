"""``python -m raftwal.pysyncobj PROGRAM ARGS...``: a Python program with `install()` in force."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import raftwal
from raftwal.errors import RaftwalError
from raftwal.exporter import start_http_server
from raftwal.pysyncobj.health import ProcessHealth
from raftwal.pysyncobj.installation import install
from raftwal.pysyncobj.launch import (
    Program,
    ProgramNotFoundError,
    find_module,
    find_program,
    run,
)
from raftwal.pysyncobj.settings import StorageSettings

_NAME = "python -m raftwal.pysyncobj"
_USAGE = f"""{_NAME} [OPTIONS] PROGRAM [ARGS...]
       {_NAME} [OPTIONS] -m MODULE [ARGS...]"""
_DESCRIPTION = """\
Run a Python program with raftwal installed: each PySyncObj node in it whose
configuration names a journalFile keeps its log and snapshots in the directory of that
name with .raftwal appended.  PROGRAM is a script, or a command such as patroni.
"""
_EPILOG = """\
An option can also be given in the environment: --cluster-name as RAFTWAL_CLUSTER_NAME.
Processes that the program forks have raftwal installed; new interpreters that it
starts have not.

exit status: the program's own, but
  74  it was sent SIGTERM after a storage failure, and ended with 0 or has no handler
   1  a node's storage could not be opened, or PySyncObj is not a supported one
   2  wrong use, or no such program
"""
_STORAGE_FAILED = 74  # EX_IOERR of sysexits.h
_NOT_OPENED = 1
_WRONG_USE = 2


def main() -> None:
    """Run the program that the command line names, and end as it ends."""
    options = _parse()
    ending = Ending()
    settings = StorageSettings(
        cluster_name=options.cluster_name,
        segment_bytes=options.segment_bytes,
        keep_segments=options.keep_segments,
        keep_snapshots=options.keep_snapshots,
        metrics_namespace=options.metrics_namespace,
        on_storage_failure=ending.begin if options.on_storage_failure == "exit" else None,
    )
    try:
        install(settings, migrate="auto" if options.migrate == "auto" else None)
        if options.metrics_address is not None:
            _export(*options.metrics_address)
        program = _find(options)
    except (RaftwalError, ProgramNotFoundError, _CannotListenError) as error:
        _fail(error, _WRONG_USE)
    try:
        run(program, options.arguments)
    except ProgramNotFoundError as error:
        _fail(error, _WRONG_USE)
    except RaftwalError as error:
        # It names the file and says what to do; whose frames it passed through does not.
        _fail(error, _NOT_OPENED)
    except SystemExit as error:
        ending.check(error.code)
        raise
    ending.check(None)


def _find(options: argparse.Namespace) -> Program:
    return find_module(options.program) if options.module else find_program(options.program)


class Ending:
    """Has the program end in good order after a storage failure.

    By SIGTERM, as a supervisor would: what is to be done when a node is gone is the
    program's affair.  Patroni stops PostgreSQL, which another member is about to replace.
    """

    def __init__(self) -> None:
        self._has_begun = False

    def begin(self, error: BaseException) -> None:
        """In the thread that ticks, which goes on: the program may wait for its answers."""
        if not isinstance(error, Exception):
            # SystemExit, most likely: SIGTERM met a program that ticks in its main thread,
            # which ends it already.
            return
        self._has_begun = True
        with contextlib.suppress(OSError, ValueError):
            _say(f"this process ends: {error}")
        if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.SIG_IGN):
            # Nothing to put in order.  And a supervisor takes a process that SIGTERM
            # killed for one that was stopped on purpose, and does not restart it.
            _flush_output()
            os._exit(_STORAGE_FAILED)
        os.kill(os.getpid(), signal.SIGTERM)

    def check(self, status: object) -> None:
        """A program that was asked to end calls that a success; its supervisor must not."""
        if self._has_begun and status in (None, 0):
            sys.exit(_STORAGE_FAILED)


class _CannotListenError(Exception):
    """Where ``--metrics-address`` points."""


def _export(host: str, port: int) -> None:
    try:
        start_http_server(ProcessHealth(), port, host)
    except OSError as error:
        raise _CannotListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}"
        ) from error


def _fail(error: Exception, status: int) -> NoReturn:
    _say(str(error))
    sys.exit(status)


def _say(text: str) -> None:
    print(f"raftwal: {text}", file=sys.stderr, flush=True)


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_NAME,
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"raftwal {raftwal.__version__}")
    _add_settings(parser)
    parser.add_argument(
        "-m", dest="module", action="store_true", help="PROGRAM is a module's name, as for python"
    )
    # All that stands behind the program's name is the program's.
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("name the program to run")
    options.program, *options.arguments = command
    return options


def _add_settings(parser: argparse.ArgumentParser) -> None:
    defaults = StorageSettings()

    def add(
        name: str, kind: Callable[[str], Any], default: object, metavar: str, text: str
    ) -> None:
        variable = "RAFTWAL_" + name.removeprefix("--").replace("-", "_").upper()
        if value := os.environ.get(variable):
            try:
                default = kind(value)
            except argparse.ArgumentTypeError as error:
                parser.error(f"in the environment, {variable}: {error}")
        parser.add_argument(name, type=kind, default=default, metavar=metavar, help=text)

    add(
        "--cluster-name",
        str,
        defaults.cluster_name,
        "NAME",
        "kept in the log and compared: a directory of another cluster is refused",
    )
    add(
        "--segment-bytes",
        _positive,
        defaults.segment_bytes,
        "N",
        "size at which a new log file is begun (default: %(default)s)",
    )
    add(
        "--keep-segments",
        _positive,
        defaults.keep_segments,
        "N",
        "log files kept that a snapshot has made dispensable (default: %(default)s)",
    )
    add(
        "--keep-snapshots",
        _positive,
        defaults.keep_snapshots,
        "N",
        "snapshot files kept (default: %(default)s)",
    )
    add(
        "--on-storage-failure",
        _choice("exit", "stand-still"),
        "exit",
        "exit|stand-still",
        "after a failed write or sync: send this process SIGTERM, and exit with 74 if "
        "that ends it (the default); or stand still, with /healthz at 503",
    )
    add(
        "--migrate",
        _choice("auto", "refuse"),
        "refuse",
        "auto|refuse",
        "where a node has a journal or dump of PySyncObj's own and no directory yet: take "
        "it over, or refuse to start (the default)",
    )
    add(
        "--metrics-address",
        _address,
        None,
        "[HOST:]PORT",
        "serve /metrics, /healthz and /readyz there (default host: 127.0.0.1)",
    )
    add(
        "--metrics-namespace",
        str,
        defaults.metrics_namespace,
        "NAME",
        "what the metrics' names begin with; etcd gives them etcd's (default: %(default)s)",
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a positive number: {text!r}")
    return int(text)


def _choice(*values: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text not in values:
            raise argparse.ArgumentTypeError(f"not {' or '.join(values)}: {text!r}")
        return text

    return choose


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(f"not of the form [HOST:]PORT: {text!r}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


if __name__ == "__main__":
    main()
