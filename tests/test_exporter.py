"""``/metrics``, ``/healthz`` and ``/readyz``, asked over loopback."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from raftwal.exporter import make_wsgi_app, start_http_server


class Node:
    """A node whose answers a test sets."""

    def __init__(self) -> None:
        self.unhealthy: str | None = None
        self.unready: str | None = None

    def healthy(self) -> str | None:
        return self.unhealthy

    def ready(self) -> str | None:
        return self.unready


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read().decode()


class Client:
    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = port

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    registry = CollectorRegistry()
    Counter("raftwal_probe", "A metric of the test's own.", registry=registry).inc(3)
    server, thread = start_http_server(node, 0, registry=registry)
    assert thread.daemon
    yield Client(server.server_port)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_node_that_is_well(client: Client, path: str) -> None:
    answer = client.ask(path)
    assert answer.status == 200
    assert answer.body == "ok\n"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_node_that_is_not_healthy_says_why(client: Client, node: Node) -> None:
    node.unhealthy = "the log refuses every call: no space left — on the disk"
    answer = client.ask("/healthz")
    assert answer.status == 503
    assert answer.body == node.unhealthy + "\n"
    assert client.ask("/readyz").status == 200


def test_a_node_that_is_not_ready_says_why(client: Client, node: Node) -> None:
    node.unready = "no leader"
    answer = client.ask("/readyz")
    assert (answer.status, answer.body) == (503, "no leader\n")
    assert client.ask("/healthz").status == 200
    node.unready = None
    assert client.ask("/readyz").status == 200


def test_a_check_that_raises_counts_as_a_no(
    client: Client, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str | None:
        raise RuntimeError("broken")

    monkeypatch.setattr(node, "healthy", fail)
    answer = client.ask("/healthz")
    assert answer.status == 503
    assert "RuntimeError: broken" in answer.body


def test_metrics_come_from_the_registry_given(client: Client) -> None:
    answer = client.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "raftwal_probe_total 3.0" in answer.body
    assert "process_" not in answer.body


def test_metrics_come_in_the_format_asked_for(client: Client) -> None:
    answer = client.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.body.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_head_answers_without_a_body(client: Client, path: str) -> None:
    answer = client.ask(path, "HEAD")
    assert (answer.status, answer.body) == (200, "")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/x", "/favicon.ico"])
def test_any_other_path_is_not_found(client: Client, path: str) -> None:
    assert client.ask(path).status == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_any_other_method_is_refused(client: Client, path: str, method: str) -> None:
    answer = client.ask(path, method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


def test_a_slow_check_does_not_hold_up_the_others(
    client: Client, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer_now = threading.Event(), threading.Event()

    def wait() -> str | None:
        asked.set()
        answer_now.wait()
        return None

    monkeypatch.setattr(node, "healthy", wait)
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(client.ask("/healthz")))
    waiting.start()
    try:
        asked.wait()
        assert client.ask("/readyz").status == 200
    finally:
        answer_now.set()
        waiting.join()
    assert answers[0].status == 200


def test_a_port_that_is_taken_is_an_error(node: Node) -> None:
    server, thread = start_http_server(node, 0)
    try:
        with pytest.raises(OSError, match="in use"):
            start_http_server(node, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_application_alone(node: Node) -> None:
    """For a program that has a WSGI server already."""
    started: list[str] = []
    application = make_wsgi_app(node)
    environ = {"PATH_INFO": "/healthz", "REQUEST_METHOD": "GET"}
    body = application(environ, lambda status, headers, exc_info=None: started.append(status))
    assert (started, list(body)) == (["200 OK"], [b"ok\n"])
