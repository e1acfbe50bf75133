"""WebSockets, with the library `websockets`."""

import asyncio
import contextlib
import json
import logging
from ssl import SSLContext
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ._http import USER_AGENT
from ._types import Closed, Dial, Refused, Socket

# More than any gateway can send; PROTOCOL states the size of messages under default settings.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
CLOSE_S = 2.0

# At DEBUG it would log headers, and with them the token.
logger = logging.getLogger("zonewire.socket")
logger.setLevel(logging.INFO)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Redirects are not followed: the token is meant for the requested server only."""
        return exc


class _WebSocket:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def recv(self) -> str:
        try:
            return await self._connection.recv(decode=True)
        except ConnectionClosed as error:
            # If this side closed the connection, as for a message that is too large, its own code counts.
            frame = error.rcvd if error.rcvd_then_sent or error.sent is None else error.sent
            raise (Closed(frame.code, frame.reason) if frame else Closed(1006, "the connection broke")) from None

    async def send(self, text: str) -> None:
        await self._connection.send(text)

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close()
        self._connection.transport.abort()


def websocket(ssl: SSLContext | None) -> Dial:
    """Opens WebSockets with `websockets`, which uses the proxies configured in the environment."""

    async def dial(url: str, token: str | None) -> Socket:
        more: dict[str, Any] = {"ssl": ssl} if ssl and url.startswith("wss:") else {}
        try:
            connection = await _Connect(
                url,
                subprotocols=["zonewire.v1"],  # type: ignore[list-item]  # a name for str
                additional_headers={"Authorization": f"Bearer {token}"} if token else None,
                user_agent_header=USER_AGENT,
                compression=None,
                open_timeout=None,  # the client limits a whole attempt,
                ping_interval=None,  # and checks the connection itself
                close_timeout=CLOSE_S,
                max_size=MESSAGE_BYTES_MAX,
                logger=logger,
                **more,
            )
        except InvalidStatus as error:
            response = error.response
            raise Refused(response.status_code, _code(response.body), _seconds(response.headers)) from None
        return _WebSocket(connection)

    return dial


def _code(body: bytes | bytearray | None) -> str:
    """The problem code of the answer, if it has one."""
    try:
        return str(json.loads(body or b"")["code"])
    except (ValueError, TypeError, LookupError):
        return ""


def _seconds(headers: Any) -> float | None:
    after = headers.get("Retry-After", "")
    return float(after) if after.isdigit() else None
