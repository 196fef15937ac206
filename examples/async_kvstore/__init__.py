"""A replicated key-value store in Starlette: writes are awaited until they are committed.

``python -m examples.async_kvstore --help`` says how to start one; see docs/asyncio.md.
"""
