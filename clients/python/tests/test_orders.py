"""Orders: placed once, and followed to their end."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from cleanup import clients, undo
from fake import FakeGateway, settle
from loops import fast, on
from real import Gateway, Proxy, follow, needs_gateway, until

from zonewire import Client, OrderError, connect, place_order, submit_order, watch_order
from zonewire.orders import to_json

SWAP = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5}
ID = "fe1c3314-8fc0-4c94-b141-dad534ca416e"
PAPER = ("serve", "--storage", "memory", "--set", "orders.paper.failure_rate=0")


@needs_gateway
async def test_places_an_order_and_follows_it_through_a_connection_that_is_cut() -> None:
    gateway = await Gateway.started(*PAPER, "--set", "connections.order_linger_ms=50")
    proxy = await Proxy.started(lambda: gateway.port)
    client = follow(proxy.url)
    progress: list[float] = []
    placed: list[str] = []

    def on_progress(update: Any) -> None:
        progress.append(update["progress"])
        if len(progress) == 3:
            proxy.cut()
            client.reconnect()
        raise LookupError("of a handler")

    end = await place_order(client, SWAP, on_placed=placed.append, on_progress=on_progress)
    assert (end["type"], [end["orderId"]]) == ("confirmed", placed)
    assert progress == [10, 30, 50, 70, 75, 90, 100]
    assert client.subscriptions == {}

    # The order has ended, and is reported again.
    assert (await watch_order(client, placed[0].upper()))["offset"] == end["offset"]

    with pytest.raises(OrderError) as wrong:
        await place_order(client, {**SWAP, "amount": -1})
    assert wrong.value.code == "invalid_order"
    assert str(wrong.value).startswith("invalid_order: the order has 1 wrong field: amount must be ")
    assert wrong.value.problem and [one["field"] for one in wrong.value.problem["errors"]] == ["amount"]


@needs_gateway
async def test_an_order_that_fails_is_an_error_that_says_why() -> None:
    sets = ("--set", "orders.paper.failure_rate=1", "--set", "orders.attempts_max=1")
    gateway = await Gateway.started("serve", "--storage", "memory", *sets)
    with pytest.raises(OrderError) as error:
        await place_order(follow(gateway.url), SWAP)
    assert error.value.failed and error.value.failed["type"] == "failed"
    assert error.value.code == error.value.failed["error"]["code"]
    assert error.value.order_id == error.value.failed["orderId"]


@needs_gateway
async def test_an_order_is_placed_once_though_the_answer_was_lost_and_keeps_its_digits() -> None:
    gateway = await Gateway.started(*PAPER)
    proxy = await Proxy.started(lambda: gateway.port)
    client = follow(gateway.url)
    lost = connect(proxy.url)
    clients.append(lost)
    proxy.bytes_left = 10  # of the answer
    order_id = await submit_order(lost, {**SWAP, "amount": Decimal("1.500000000000000000000001")})
    await until(lambda: proxy.bytes_left == float("inf"), "an answer was lost")
    orders = (await gateway.get("/api/orders"))["orders"]
    assert [one["orderId"] for one in orders] == [order_id]
    assert b'"amount":1.500000000000000000000001' in (await gateway.ask("GET", "/api/orders")).body
    await watch_order(client, order_id)


@needs_gateway
async def test_several_may_watch_one_order_and_one_of_them_may_stop() -> None:
    gateway = await Gateway.started(*PAPER)
    client = follow(gateway.url)
    order_id = await submit_order(client, SWAP)
    with client.order(order_id):
        stops = asyncio.ensure_future(watch_order(client, order_id))
        stays = asyncio.ensure_future(watch_order(client, order_id))
        await settle()
        stops.cancel()
        assert (await stays)["type"] == "confirmed"
        assert f"order:{order_id}" in client.subscriptions, "another watcher still needs it"


# With an HTTP gateway that the test controls


Answer = tuple[int, dict[str, Any], dict[str, str]]


class Scripted:
    """Answers each request with the next of these: an answer, silence ('hang'), or a closed connection ('cut')."""

    def __init__(self, *answers: Answer | str) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.left = 0  # clients that left without an answer

    async def listen(self) -> str:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        undo.append(self.server.close)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append((first, headers, body and json.loads(body)))
            answer = self.answers.pop(0)
            if answer == "hang":
                await reader.read()
                self.left += 1
            elif isinstance(answer, tuple):
                status, told, more = answer
                text = json.dumps(told).encode()
                # In pieces, as a proxy may send it.
                more = {**more, "Transfer-Encoding": "chunked"}
                lines = [f"HTTP/1.1 {status} Words", *[f"{name}: {value}" for name, value in more.items()]]
                chunk = b"%x\r\n%s\r\n" % (len(text), text)
                writer.write("\r\n".join([*lines, "", ""]).encode() + chunk + b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def scripted(*answers: Answer | str, **options: Any) -> tuple[Scripted, FakeGateway, Client]:
    http = Scripted(*answers)
    gateway = FakeGateway()
    client = connect(f"{await http.listen()}/base", dial=gateway.dial, **options)
    clients.append(client)
    await settle()
    await gateway_is_open(gateway)
    return http, gateway, client


async def gateway_is_open(gateway: FakeGateway) -> None:
    gateway.subscribes()
    await gateway.socket.greet(timestamp="2026-11-21T03:40:47Z", subject="alice")


def answer(status: int, body: dict[str, Any] | None = None, **headers: str) -> Answer:
    return status, body or {}, {name.replace("_", "-"): value for name, value in headers.items()}


PLACED = answer(202, {"orderId": ID})


@on(fast(50))
async def test_is_sent_again_with_the_same_key_and_the_token_of_the_moment_where_the_answer_says_later() -> None:
    given: list[str] = []

    def token() -> str:
        given.append(f"t{len(given) + 1}")
        return given[-1]

    end = {"type": "confirmed", "progress": 100}
    http, gateway, client = await scripted(
        answer(503, {"code": "queue_full"}),
        "cut",
        answer(502),
        answer(429, {"code": "connecting_too_often"}, Retry_After="1"),
        PLACED,
        answer(200, {"lastUpdate": end}),
        token=token,
    )
    placing = asyncio.ensure_future(place_order(client, SWAP))
    await until(lambda: client.subscriptions, lambda: http.requests)
    await settle()
    # Its stored updates are gone, and it has ended.
    await gateway.socket.say({"type": "unsubscribed", "channel": f"order:{ID}", "code": "finished"})
    assert await placing == end
    assert [first for first, _, _ in http.requests] == [
        *["POST /base/api/orders/execute HTTP/1.1"] * 5,
        f"GET /base/api/orders/{ID} HTTP/1.1",
    ]
    assert len({headers["idempotency-key"] for _, headers, _ in http.requests[:5]}) == 1
    assert [headers["authorization"] for _, headers, _ in http.requests] == [f"Bearer t{n}" for n in range(2, 8)]
    assert all(body == SWAP for _, _, body in http.requests[:5])


@on(fast(50))
async def test_says_whether_an_order_may_have_been_placed_after_all() -> None:
    async def outcome(*answers: Answer | str, **options: Any) -> OrderError:
        http, _, client = await scripted(*answers)
        with pytest.raises(OrderError) as error:
            await submit_order(client, SWAP, idempotency_key="mine", **options)
        assert error.value.idempotency_key == "mine"
        assert {headers["idempotency-key"] for _, headers, _ in http.requests} == {"mine"}
        return error.value

    error = await outcome(answer(503, {"code": "queue_full", "detail": "full"}), place_for_s=0)
    assert (error.code, error.message) == ("queue_full", "full")
    assert (await outcome(answer(504), answer(503, {"code": "queue_full"}), place_for_s=0.3)).code == "no_answer"
    assert (await outcome("hang", answer_s=1, place_for_s=1)).code == "no_answer"
    assert (await outcome("cut", place_for_s=0)).code == "no_answer"
    assert (await outcome(answer(302, {}, Location="http://other.test"))).code == "status_302"
    assert (await outcome(answer(202, {"something": "else"}), place_for_s=0)).code == "status_202"

    nobody = connect("http://127.0.0.1:9", dial=FakeGateway().dial)
    clients.append(nobody)
    with pytest.raises(OrderError) as unreachable:
        await submit_order(nobody, SWAP, place_for_s=1)
    assert unreachable.value.code == "unreachable"


@on(fast(50))
async def test_is_sent_again_to_the_gateway_that_may_have_it_and_else_to_the_next_one() -> None:
    one, other = Scripted("cut", PLACED), Scripted(PLACED)
    gateway = FakeGateway()
    # Nobody listens on the second address.
    addresses = [await one.listen(), "http://127.0.0.1:9", await other.listen()]
    client = connect(addresses, dial=gateway.dial)
    clients.append(client)
    await submit_order(client, SWAP)
    assert (len(one.requests), len(other.requests)) == (2, 0), "the answer was lost, so it is sent there again"
    await submit_order(client, SWAP)
    assert (len(one.requests), len(other.requests)) == (2, 1), "no gateway can have it"


async def test_cancelling_leaves_nothing_behind() -> None:
    http, gateway, client = await scripted("hang")
    placing = asyncio.ensure_future(place_order(client, SWAP))
    await until(lambda: http.requests, "sent")
    placing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await placing
    await until(lambda: http.left == 1, "the gateway hears of it")

    watching = asyncio.ensure_future(watch_order(client, ID))
    await until(lambda: client.subscriptions, "watched")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert client.subscriptions == {}
    await settle()
    assert [one["type"] for one in gateway.socket.sent] == ["subscribe", "unsubscribe"]


async def test_what_cannot_be_watched_is_told_so() -> None:
    async def outcome(end: Callable[[FakeGateway, Client], Any]) -> OrderError:
        _, gateway, client = await scripted(answer(404, {"code": "unknown_order"}))
        gaps: list[int | None] = []
        watching = asyncio.ensure_future(watch_order(client, ID, on_gap=gaps.append))
        await until(lambda: client.subscriptions, "watched")
        await settle()
        resync = {"epoch": "e2", "old_epoch": "e1", "offset": 9, "recovered": False, "gap": 9}
        await gateway.socket.say({"type": "resync", "channel": f"order:{ID}", **resync})
        await settle()
        assert gaps == [9]
        if coroutine := end(gateway, client):
            await coroutine
        with pytest.raises(OrderError) as error:
            await watching
        assert error.value.order_id == ID
        return error.value

    def ends(code: str) -> Callable[[FakeGateway, Client], Any]:
        message = {"type": "unsubscribed", "channel": f"order:{ID}", "code": code}
        return lambda gateway, _: gateway.socket.say(message)

    assert (await outcome(ends("forbidden"))).code == "not_watched"
    assert (await outcome(ends("finished"))).code == "not_watched"
    assert (await outcome(lambda gateway, _: gateway.socket.drop(4500))).code == "not_watched"
    assert (await outcome(lambda _, client: client.close())).code == "not_watched"


async def test_a_key_that_is_invalid_in_a_header_is_refused() -> None:
    _, _, client = await scripted()
    for key in ["two words", "a\r\nb", "x" * 256]:
        with pytest.raises(ValueError, match="idempotency key"):
            await submit_order(client, SWAP, idempotency_key=key)


def test_json_is_as_ever_but_decimals_have_their_digits() -> None:
    order = {
        "a": Decimal("1.50"),
        "b": [Decimal("1E+3"), 1, 1.5, None, True, 'x"ü'],
        "c": {"d": "\0" + "1"},
        "e": (),
    }
    text = to_json(order)
    assert text.startswith('{"a":1.50,"b":[1E+3,1,1.5,null,true,')
    assert json.loads(text) == {**order, "a": 1.5, "b": [1000, 1, 1.5, None, True, 'x"ü'], "e": []}
    for wrong in [Decimal("NaN"), Decimal("-Infinity"), float("nan")]:
        with pytest.raises(ValueError):
            to_json([wrong])
    with pytest.raises(TypeError):
        to_json({"a": object()})
