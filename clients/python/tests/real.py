"""Real gateways, a real Redis, and a proxy before them that imitates failures of networks."""

import asyncio
import json
import os
import re
import shutil

import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

import pytest
from cleanup import clients, undo

from zonewire import Client, connect
from zonewire._http import Answer, request

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("ZONEWIRE_BIN", str(ROOT / "target/debug/zonewire"))


def _missing(what: str, require: str) -> str:
    if os.environ.get(require):
        raise RuntimeError(f"{require} is set, and {what}")
    return what


def _without_gateway() -> str:
    if os.path.exists(BINARY):
        return ""
    return _missing(
        f"there is no gateway at {BINARY}: cargo build, or ZONEWIRE_BIN", "ZONEWIRE_TEST_REQUIRE_GATEWAY"
    )


def _without_redis() -> str:
    if shutil.which("redis-server"):
        return _without_gateway()
    return _missing("there is no redis-server", "ZONEWIRE_TEST_REQUIRE_REDIS")


NO_GATEWAY, NO_REDIS = _without_gateway(), _without_redis()
needs_gateway = pytest.mark.skipif(bool(NO_GATEWAY), reason=NO_GATEWAY)
needs_redis = pytest.mark.skipif(bool(NO_REDIS), reason=NO_REDIS)


async def pause(seconds: float) -> None:
    """Waits for real seconds, whatever the loop's speed."""
    await asyncio.sleep(seconds * getattr(asyncio.get_running_loop(), "times", 1))


async def until(is_so: Callable[[], Any], what: Callable[[], Any] | str, within_s: float = 30) -> None:
    """Polls until a condition holds."""
    deadline = time.monotonic() + within_s
    while True:
        answer = is_so()
        if await answer if isinstance(answer, Awaitable) else answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"it never happened: {what if isinstance(what, str) else what()}")
        await pause(0.004)


class Program:
    """A program that runs until the test is over, or until killed."""

    def __init__(self, *command: str) -> None:
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"]},
        )
        undo.append(self.end)

    def output(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        start = max(0, size - 20_000)
        return os.pread(self._output.fileno(), size - start, start).decode(errors="replace")

    def signal(self, number: Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    async def ended(self) -> int:
        await until(lambda: self._process.poll() is not None, self.output)
        return self._process.returncode

    async def kill(self, number: Signals = SIGKILL) -> int:
        self.signal(number)
        return await self.ended()

    async def end(self) -> None:
        if not self._output.closed:
            await self.kill()
            self._output.close()


class Gateway:
    def __init__(self, *args: str) -> None:
        self.args = args
        self.port = 0

    @classmethod
    async def started(cls, *args: str) -> "Gateway":
        gateway = cls(*args)
        await gateway.start()
        return gateway

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it; when restarted, at the same address."""
        command, *args = self.args
        self.program = Program(BINARY, command, "--listen", f"127.0.0.1:{self.port}", *args)
        await until(lambda: re.search(r" ready address=\S+:\d+", self.program.output()), self.program.output)
        found = re.search(r" ready address=\S+:(\d+)", self.program.output())
        assert found
        self.port = int(found[1])

    async def kill(self, number: Signals = SIGKILL) -> int:
        return await self.program.kill(number)

    async def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> Answer:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await request(self.url, method, path, headers=headers, body=text)

    async def publish(self, zone: str, *prices: dict[str, Any] | bytes, token: str | None = None) -> None:
        body = prices[0] if isinstance(prices[0], bytes) else list(prices)
        answer = await self.ask("POST", f"/api/zones/{zone}/prices", body, token)
        assert answer.status == 200, answer

    async def get(self, path: str) -> Any:
        return json.loads((await self.ask("GET", path)).body)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Redis:
    def __init__(self) -> None:
        self.port = free_port()
        self._dir = tempfile.TemporaryDirectory(prefix="zonewire-redis-")
        undo.append(self._dir.cleanup)

    @classmethod
    async def started(cls) -> "Redis":
        redis = cls()
        await redis.start()
        return redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        args = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync always --dir {self._dir.name}"
        self.program = Program("redis-server", "--save", "", *args.split())
        await until(lambda: "Ready to accept connections" in self.program.output(), self.program.output)

    async def kill(self) -> None:
        await self.program.kill()


class _Side(asyncio.Protocol):
    """One end of a proxied connection."""

    def __init__(self, proxy: "Proxy", other: "_Side | None" = None) -> None:
        self.proxy = proxy
        self.other = other
        self.transport: Any = None
        self.waiting: list[bytes] = []
        if other:
            other.other = self

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.proxy.is_stalled:
            transport.pause_reading()
        if self.other is None:
            if self.proxy.refuses > 0:
                self.proxy.refuses -= 1
                transport.abort()
                return
            self.proxy.sides.add(self)
            self.dialing = asyncio.get_running_loop().create_task(self._dial())
            return
        self.proxy.sides.add(self)
        for data in self.other.waiting:
            transport.write(data)

    async def _dial(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: _Side(self.proxy, self), "127.0.0.1", self.proxy.to())
        except OSError:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        other, proxy = self.other, self.proxy
        if other is None or other.transport is None:
            self.waiting.append(data)
            return
        if not hasattr(self, "dialing"):  # from the gateway
            if proxy.bytes_left < len(data):
                other.transport.write(data[: int(proxy.bytes_left)])
                proxy.bytes_left = float("inf")
                other.transport.close()
                self.transport.abort()
                return
            proxy.bytes_left -= len(data)
        other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.proxy.sides.discard(self)
        if self.other and self.other.transport:
            self.other.transport.abort()


class Proxy:
    """Forwards bytes to a gateway, until told to do worse."""

    def __init__(self, to: Callable[[], int]) -> None:
        self.to = to
        self.refuses = 0
        """How many of the next connections are refused."""
        self.bytes_left = float("inf")
        """After how many more bytes from the gateway the connection breaks, in the middle of anything."""
        self.is_stalled = False
        self.sides: set[_Side] = set()

    @classmethod
    async def started(cls, to: Callable[[], int]) -> "Proxy":
        proxy = cls(to)
        proxy.server = await asyncio.get_running_loop().create_server(lambda: _Side(proxy), "127.0.0.1", 0)
        undo.append(proxy.close)
        return proxy

    server: asyncio.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        for side in list(self.sides):
            side.transport.abort()

    def stall(self) -> None:
        """Makes connections half-open for good: they stay open, but nothing passes any more."""
        self.is_stalled = True
        for side in self.sides:
            side.transport.pause_reading()

    def heal(self) -> None:
        """New connections work normally."""
        self.is_stalled = False
        self.refuses = 0
        self.bytes_left = float("inf")

    def close(self) -> None:
        self.cut()
        self.server.close()


def follow(url: Any, **options: Any) -> Client:
    """A client that is closed at the end of the test."""
    client: Client = connect(url, **options)
    clients.append(client)
    return client
