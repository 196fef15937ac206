"""raftwal's log beside other logs and stores, each saved to and read by a program of its own.

``python -m integration.benchmarks alone``, ``... peers`` and ``... report``; what they
measured, and how, is in docs/performance.md.
"""
