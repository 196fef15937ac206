"""``python -m raftwal``: the same as the command ``raftwal``."""

import sys

from raftwal.cli import main

if __name__ == "__main__":
    sys.exit(main())
