"""``/metrics``, ``/healthz`` and ``/readyz`` over HTTP.

::

    server, thread = start_http_server(node, port=9100)
    ...
    server.shutdown()
    server.server_close()

``node`` is anything with the two methods of `Health`.  `make_wsgi_app` gives the same
three paths to a program that has a WSGI server already.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry

from raftwal.events import log

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_METHODS = ("GET", "HEAD")
_IDLE_SECONDS = 30.0


class Health(Protocol):
    """What a node can say about itself.  Called from any thread, at any time.

    Both methods answer ``None`` for yes, or the reason for no in one sentence.
    """

    def healthy(self) -> str | None:
        """Why the process must be restarted, or ``None``.

        A log that refuses every call after a failed write is such a reason.  Having
        no leader is not: a restart does not bring one back.
        """

    def ready(self) -> str | None:
        """Why the node cannot serve clients now, or ``None``: still recovering, no leader."""


def make_wsgi_app(health: Health, registry: CollectorRegistry | None = None) -> WSGIApplication:
    """A WSGI application with three paths.

    ``/metrics`` is what ``registry`` (prometheus_client's own by default) holds, in
    the format that the client asks for.  ``/healthz`` and ``/readyz`` answer 200 and
    ``ok``, or 503 and the reason, as plain text; a check that raises counts as a no.
    Any other path answers 404, and any method but GET and HEAD 405.
    """
    metrics: WSGIApplication = prometheus_client.make_wsgi_app(
        REGISTRY if registry is None else registry
    )

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path not in ("/metrics", "/healthz", "/readyz"):
            return _text(environ, start_response, "404 Not Found", "not found")
        if environ["REQUEST_METHOD"] not in _METHODS:
            return _text(environ, start_response, "405 Method Not Allowed", "use GET or HEAD")
        if path == "/metrics":
            return _metrics(metrics, environ, start_response)
        reason = _ask(health.healthy if path == "/healthz" else health.ready)
        if reason is None:
            return _text(environ, start_response, "200 OK", "ok")
        return _text(environ, start_response, "503 Service Unavailable", reason)

    return application


def start_http_server(
    health: Health,
    port: int,
    address: str = "127.0.0.1",
    registry: CollectorRegistry | None = None,
) -> tuple[WSGIServer, threading.Thread]:
    """Serve `make_wsgi_app` in a daemon thread; it listens when this returns.

    Port 0 takes a free one: ``server.server_port`` says which.  To stop, call the
    server's ``shutdown()``, then its ``server_close()``.

    Raises ``OSError`` when the address cannot be listened on.
    """
    family, resolved = _resolve(address, port)

    class Server(_ThreadingServer):
        address_family = family

    application = make_wsgi_app(health, registry)
    server = make_server(resolved, port, application, Server, handler_class=_QuietHandler)
    thread = threading.Thread(target=server.serve_forever, name="raftwal-exporter", daemon=True)
    thread.start()
    return server, thread


def _ask(question: Callable[[], str | None]) -> str | None:
    try:
        return question()
    except Exception as error:  # a probe must get its 503, whatever broke
        return f"the check failed: {type(error).__name__}: {error}"


def _text(
    environ: WSGIEnvironment, start_response: StartResponse, status: str, text: str
) -> Iterable[bytes]:
    body = text.encode("utf-8", "backslashreplace") + b"\n"
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    if status.startswith("405"):
        headers.append(("Allow", ", ".join(_METHODS)))
    start_response(status, headers)
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]


def _metrics(
    metrics: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "GET":
        return metrics(environ, start_response)
    # prometheus_client refuses HEAD, which some load balancers probe with.
    metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
    return []


def _resolve(address: str, port: int) -> tuple[socket.AddressFamily, str]:
    """The family to listen with, IPv6 included, and the address in numbers."""
    family, _, _, _, resolved = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return family, str(resolved[0])


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is its own affair; anything else is logged."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            log.warning("exporter_request_failed", client=str(client_address), error=repr(error))


class _QuietHandler(WSGIRequestHandler):
    # A client that connects and says nothing would keep its thread for ever.
    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes every few seconds are no news."""
