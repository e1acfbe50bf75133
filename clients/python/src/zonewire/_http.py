"""Requests over HTTP: few, small, and cleanly cancellable."""

import asyncio
import http.client
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from ssl import SSLContext, create_default_context
from typing import Any
from urllib.parse import urlsplit

ANSWER_BYTES_MAX = 16 * 1024 * 1024

try:
    VERSION = version("zonewire")
except PackageNotFoundError:  # not installed, but run from its sources
    VERSION = "0"
USER_AGENT = f"zonewire-python/{VERSION}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class _Received:
    """The part of a socket that the standard library's response parser needs."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._received)


async def request(
    base: str,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: bytes = b"",
    ssl: SSLContext | None = None,
    on_sending: Callable[[], None] = lambda: None,
) -> Answer:
    """Sends a request on a new connection, and waits for the answer.

    It connects directly, and follows no redirects. `on_sending` is called once connected, before anything is sent.

    Raises:
        OSError: the connection failed.
        HTTPException: the answer is incomplete or invalid.
    """
    url = urlsplit(base)
    is_secure = url.scheme == "https"
    reader, writer = await asyncio.open_connection(
        url.hostname,
        url.port or (443 if is_secure else 80),
        ssl=(ssl or create_default_context()) if is_secure else None,
    )
    try:
        lines = [f"{method} {url.path}{path} HTTP/1.1", f"Host: {url.netloc}", f"Content-Length: {len(body)}"]
        lines += [f"User-Agent: {USER_AGENT}", "Accept: application/json", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        on_sending()
        writer.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        received = bytearray()
        while piece := await reader.read(65_536):
            received += piece
            if len(received) > ANSWER_BYTES_MAX:
                raise OSError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    finally:
        writer.transport.abort()
    response = http.client.HTTPResponse(_Received(bytes(received)), method=method)  # type: ignore[arg-type]
    response.begin()
    return Answer(response.status, response.reason, dict(response.headers.items()), response.read())
