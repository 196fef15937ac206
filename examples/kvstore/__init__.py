"""A replicated key-value store with an HTTP API: a Raft node whose writes survive anything.

``python -m examples.kvstore --help`` says how to start one; see docs/kvstore.md.
"""
