"""The HTTP API over a store: /kv/KEY, /status, and raftwal's three paths beside it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from examples.kvstore.store import (
    MAX_VALUE_BYTES,
    KVStore,
    OutcomeUnknownError,
    WriteRefusedError,
)
from raftwal.exporter import make_wsgi_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_KEY_BYTES = 1024


def make_app(store: KVStore, *, write_timeout: float, concurrent_writes: int) -> WSGIApplication:
    """The node's WSGI application.

    Each write waits in a thread of the server, for as long as there is no leader if
    need be.  ``concurrent_writes``, fewer than the server has threads, keeps some
    free for reads and health checks.
    """
    app = Flask("kvstore")
    app.config["MAX_CONTENT_LENGTH"] = MAX_VALUE_BYTES
    app.url_map.merge_slashes = False
    app.register_error_handler(HTTPException, _as_json)
    places = threading.BoundedSemaphore(concurrent_writes)

    def write(command: Callable[[], None]) -> Response | tuple[Response, int]:
        if store.storage_failure is not None:
            return _error(503, "STORAGE_FAILED", str(store.storage_failure))
        if not places.acquire(blocking=False):
            return _error(503, "BUSY", f"{concurrent_writes} writes are waiting already")
        try:
            command()
        except WriteRefusedError as refusal:
            return _error(503, str(refusal))
        except OutcomeUnknownError as timeout:
            return _error(504, "TIMEOUT", f"{timeout}; the write may yet be committed")
        finally:
            places.release()
        return Response(status=204)

    @app.before_request
    def check_key() -> tuple[Response, int] | None:
        key = (request.view_args or {}).get("key", "")
        if len(key.encode()) > MAX_KEY_BYTES:
            return _error(400, "KEY_TOO_LONG", f"a key has at most {MAX_KEY_BYTES} bytes")
        # What the server puts where a path is not UTF-8: two keys would become one.
        if "\N{REPLACEMENT CHARACTER}" in key:
            return _error(400, "KEY_NOT_UTF8")
        return None

    @app.get("/kv/<path:key>")
    def get(key: str) -> Response | tuple[Response, int]:
        value = store.get(key)
        if value is None:
            return _error(404, "NO_SUCH_KEY")
        return Response(value, mimetype="application/octet-stream")

    @app.put("/kv/<path:key>")
    def put(key: str) -> Response | tuple[Response, int]:
        value = request.get_data()
        return write(lambda: store.put(key, value, write_timeout))

    @app.delete("/kv/<path:key>")
    def delete(key: str) -> Response | tuple[Response, int]:
        return write(lambda: store.delete(key, write_timeout))

    @app.get("/status")
    def status() -> Response:
        return jsonify(store.status())

    operations = make_wsgi_app(store)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        is_ours = environ["PATH_INFO"].startswith("/kv/") or environ["PATH_INFO"] == "/status"
        return (app if is_ours else operations)(environ, start_response)

    return application


def _error(status: int, error: str, detail: str = "") -> tuple[Response, int]:
    return jsonify({"error": error} | ({"detail": detail} if detail else {})), status


def _as_json(error: HTTPException) -> Response:
    name = error.name.upper().replace(" ", "_")
    body = json.dumps({"error": name, "detail": error.description})
    return Response(body + "\n", error.code, mimetype="application/json")
