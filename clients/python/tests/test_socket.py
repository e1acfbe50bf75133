"""Real sockets, and an in-process server that behaves like gateways and intermediaries."""

import asyncio
import http
import json
import logging
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cleanup import clients, undo
from loops import fast, on
from real import follow, until
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

import zonewire._socket
from zonewire import connect, submit_order

GREETING = json.dumps(
    {
        "type": "connection_established",
        "storage_backend": "in-memory",
        "state": "healthy",
        "heartbeat_interval_ms": 30_000,
        "protocol": 1,
        "timestamp": "2026-11-21T03:40:47Z",
    }
)


async def serving(handler: Callable[[ServerConnection], Awaitable[None]], **options: Any) -> tuple[Server, str]:
    server = await serve(handler, "127.0.0.1", 0, subprotocols=["zonewire.v1"], **options)  # type: ignore[list-item]
    undo.append(server.wait_closed)
    undo.append(server.close)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def greet(connection: ServerConnection) -> None:
    await connection.send(GREETING)
    await connection.wait_closed()


async def test_a_token_goes_in_a_header_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    requests: list[Request] = []

    def look(_: ServerConnection, request: Request) -> None:
        requests.append(request)

    _, url = await serving(greet, process_request=look)
    client = follow(f"{url}/base/", token="a.b.c")
    await client.opened()
    (request,) = requests
    assert request.path == "/base/ws"
    assert request.headers["Authorization"] == "Bearer a.b.c"
    assert request.headers["Sec-WebSocket-Protocol"] == "zonewire.v1"
    assert request.headers["User-Agent"].startswith("zonewire-python/")
    assert "Sec-WebSocket-Extensions" not in request.headers
    client.close()
    await client.wait_closed()
    # The server is in this process too, and logs what it received.
    assert "a.b.c" not in "".join(
        record.getMessage() for record in caplog.records if record.name != "websockets.server"
    )
    assert "a.b.c" in caplog.text


async def test_nobody_is_sent_elsewhere_with_a_token() -> None:
    heard: list[str] = []

    async def elsewhere(connection: ServerConnection) -> None:
        heard.append(str(connection.request and connection.request.headers))

    _, other = await serving(elsewhere)

    def redirect(_: ServerConnection, request: Request) -> Response:
        return Response(302, "Found", Headers({"Location": f"{other}/ws", "Content-Length": "0"}))

    _, url = await serving(greet, process_request=redirect)
    client = follow(url, token="a.b.c", random=lambda: 0)
    await until(lambda: client.status.state == "waiting", lambda: client.status)
    assert client.status.reason == "HTTP 302"
    assert heard == []


async def test_an_answer_in_the_place_of_a_socket_is_told_by_its_code() -> None:
    outcomes: list[Any] = []
    for status, body, headers in [
        (403, {"code": "origin_not_allowed"}, {}),
        (503, {"code": "too_many_connections"}, {"Retry-After": "7"}),
        (502, None, {}),
    ]:
        response = Response(
            status,
            http.HTTPStatus(status).phrase,
            Headers({**headers, "Content-Type": "application/problem+json"}),
            json.dumps(body).encode() if body else b"<html>",
        )
        _, url = await serving(greet, process_request=lambda *_, response=response: response)
        client = follow(url, random=lambda: 0)
        await until(lambda: client.status.state != "connecting", lambda: client.status)
        outcomes.append((client.status.state, client.status.reason, client.status.retry_in_s))
        client.close()
    assert outcomes == [
        ("failed", "HTTP 403 origin_not_allowed", None),
        ("waiting", "HTTP 503 too_many_connections", 7),
        ("waiting", "HTTP 502", 1),
    ]


async def test_the_code_and_the_reason_of_a_close_frame_arrive() -> None:
    async def ends(how: Callable[[ServerConnection], Any]) -> tuple[Any, ...]:
        async def handler(connection: ServerConnection) -> None:
            await connection.send(GREETING)
            outcome = how(connection)
            if isinstance(outcome, Awaitable):
                await outcome

        server, url = await serving(handler)
        client = follow(url)
        await until(lambda: client.status.state not in ("connecting", "open"), lambda: client.status)
        status = client.status
        client.close()
        server.close()
        return status.state, status.code, status.reason

    assert await ends(lambda it: it.close(4001, "slow_consumer")) == ("waiting", 4001, "slow_consumer")
    assert await ends(lambda it: it.close(4502, "bad_request")) == ("failed", 4502, "bad_request")
    assert await ends(lambda it: it.transport.abort()) == ("waiting", 1006, "the connection broke")
    assert await ends(lambda it: it.transport.write(b"\x88\x00")) == ("waiting", 1005, "")


async def test_a_message_that_is_too_large_for_this_side_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zonewire._socket, "MESSAGE_BYTES_MAX", 1_000)

    async def handler(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.send("x" * 1_001)

    _, url = await serving(handler)
    client = follow(url)
    await until(lambda: client.status.state == "failed", lambda: client.status)
    assert client.status.code == 1009


@on(fast(20))
async def test_a_server_left_in_the_middle_of_a_handshake_sees_the_connection_end() -> None:
    ended: list[bytes] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            ended.append(await reader.read())
        except ConnectionError:
            ended.append(b"")
        finally:
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    undo.append(server.close)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    timed_out = follow(url)
    await until(lambda: timed_out.status.reason == "timed out", lambda: timed_out.status)
    await until(lambda: ended == [b""], lambda: ended)
    closed = follow(url)
    await asyncio.sleep(1)
    closed.close()
    await closed.wait_closed()
    await until(lambda: len(ended) >= 2, lambda: ended)


@on(fast(20))
async def test_closing_comes_to_an_end_where_the_other_side_is_deaf() -> None:
    is_over = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        connection.transport.pause_reading()
        await is_over.wait()
        connection.transport.abort()

    _, url = await serving(deaf)
    client = follow(url)
    await client.opened()
    client.close()
    await client.wait_closed()
    assert not is_over.is_set()
    is_over.set()


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl")
async def test_over_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    )
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *more], check=True, capture_output=True)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    _, url = await serving(greet, ssl=served)

    async def takes_orders(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 202 Accepted\r\nContent-Length: 15\r\n\r\n{"orderId":"1"}')
        writer.close()

    orders = await asyncio.start_server(takes_orders, "127.0.0.1", 0, ssl=served)
    undo.append(orders.close)

    trusting = ssl.create_default_context(cafile=str(certificate))
    client = follow(url.replace("http", "https"), ssl=trusting)
    await client.opened()
    assert (await client.address()).startswith("https://")

    buyer = connect(f"https://127.0.0.1:{orders.sockets[0].getsockname()[1]}", ssl=trusting)
    clients.append(buyer)
    assert await submit_order(buyer, {}) == "1"

    stranger = follow(url.replace("http", "https"))
    await until(lambda: stranger.status.state == "waiting", lambda: stranger.status)
    assert "certificate verify failed" in (stranger.status.reason or "")
