"""The command line of the demo.  Exit status 1: something was lost, or a step failed."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from examples.demo.cluster import KVCluster, NodeError
from examples.demo.report import print_report
from examples.demo.scenario import Scenario
from examples.demo.screen import Screen

# Small, so that a short run takes snapshots, purges segments and recovers from both.
NODE_OPTIONS = ("--snapshot-entries", "200", "--segment-bytes", "262144")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.keep is not None and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"{options.keep} is not empty")
    directory = options.keep or Path(tempfile.mkdtemp(prefix="raftwal-demo-"))
    screen = Screen()
    status = 1
    try:
        with KVCluster(directory, options=NODE_OPTIONS) as cluster:
            result = Scenario(cluster, screen, options.writes).run()
        print_report(screen.console, result)
        status = 1 if result.losses else 0
    except NodeError as error:
        screen.say(f"FAILED: {error}")
    except KeyboardInterrupt:
        screen.say("interrupted")
        status = 130
    finally:
        if options.keep is not None or status == 1:
            screen.say(f"data and logs of the nodes: {directory}")
        else:
            shutil.rmtree(directory)
    if status == 0:
        screen.say("nothing that was acknowledged is lost")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Start a three-node kvstore, write to it while its nodes are killed, and "
        "check that every acknowledged write is on every node.",
    )
    parser.add_argument(
        "--writes",
        type=_count,
        default=1000,
        metavar="N",
        help="acknowledged writes before the first kill; as many again follow, a third in each "
        "of the steps (default: %(default)s)",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the nodes' data and logs here (new or empty)"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 3:
        raise argparse.ArgumentTypeError(f"not a number above 2: {text!r}")
    return int(text)


if __name__ == "__main__":
    # So that no node outlives the demo.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
