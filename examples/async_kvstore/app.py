"""The node and the Starlette application that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import prometheus_client
from pysyncobj import SyncObjConf
from pysyncobj.batteries import ReplDict
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from raftwal.errors import CommandError, CommandNotAppliedError
from raftwal.pysyncobj import DurableSyncObj, StorageSettings, committed, lifespan

MAX_VALUE_BYTES = 512 * 1024
WRITE_SECONDS = 5.0


class KVStore(DurableSyncObj):
    """One node.  Its state is one of PySyncObj's batteries."""

    def __init__(self, address: str, partners: Iterable[str], data_dir: str) -> None:
        # Made before the node: it may load a snapshot at once.
        self.values = ReplDict()
        conf = SyncObjConf(
            # Send each command at once.  PySyncObj would cut a larger entry in pieces.
            appendEntriesUseBatch=False,
            appendEntriesBatchSizeBytes=2 * MAX_VALUE_BYTES,
            autoTickPeriod=0.02,
            connectionRetryTime=0.1,
            bindRetryTime=0.2,
            maxBindRetries=5,
        )
        settings = StorageSettings(cluster_name="async_kvstore")
        super().__init__(
            address, partners, conf, consumers=[self.values], data_dir=data_dir, settings=settings
        )


def make_app(
    make_node: Callable[[], KVStore], on_storage_failure: Callable[[BaseException], None]
) -> Starlette:
    return Starlette(
        routes=[
            Route("/kv/{key:path}", get, methods=["GET"]),
            Route("/kv/{key:path}", put, methods=["PUT"]),
            Route("/kv/{key:path}", delete, methods=["DELETE"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        exception_handlers={CommandError: not_acknowledged},
        lifespan=lifespan(make_node, on_storage_failure=on_storage_failure),
    )


async def get(request: Request) -> Response:
    """What this node has applied; it may be behind."""
    value = request.state.node.values.get(_key_of(request))
    if value is None:
        raise HTTPException(404)
    return Response(value, media_type="application/octet-stream")


async def put(request: Request) -> Response:
    key = _key_of(request)
    value = bytearray()
    async for piece in request.stream():
        value += piece
        if len(value) > MAX_VALUE_BYTES:
            raise HTTPException(413)
    values = request.state.node.values
    await committed(values.set, key, bytes(value), timeout=WRITE_SECONDS)
    return Response(status_code=204)


async def delete(request: Request) -> Response:
    values = request.state.node.values
    old = await committed(values.pop, _key_of(request), timeout=WRITE_SECONDS)
    if old is None:
        raise HTTPException(404)
    return Response(status_code=204)


async def not_acknowledged(request: Request, error: Exception) -> Response:
    """503: it was not written, write it again.  504: it may be, or may yet be."""
    assert isinstance(error, CommandError)
    status = 503 if isinstance(error, CommandNotAppliedError) else 504
    return JSONResponse({"error": error.reason, "detail": str(error)}, status)


async def healthz(request: Request) -> Response:
    return _probe(request.state.node.healthy())


async def readyz(request: Request) -> Response:
    return _probe(request.state.node.ready())


def metrics(request: Request) -> Response:
    # No coroutine: Starlette calls it in a thread, for it takes milliseconds.
    text = prometheus_client.generate_latest()
    return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _key_of(request: Request) -> str:
    key: str = request.path_params["key"]
    # What the server puts where a path is not UTF-8: two keys would become one.
    if "\N{REPLACEMENT CHARACTER}" in key:
        raise HTTPException(400)
    return key


def _probe(why_not: str | None) -> Response:
    return PlainTextResponse(why_not or "ok", 503 if why_not else 200)
