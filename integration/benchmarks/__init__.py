"""raftwal beside PySyncObj's own journals, measured in turn in one run.

``python -m integration.benchmarks cluster`` and ``... recovery``; see docs/benchmarks.md.
"""
