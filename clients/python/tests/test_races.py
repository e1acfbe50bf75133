"""Races of reconnecting clients, each of which occurred in the field; those specific to pages are left out."""

import asyncio
import gc
import json
from typing import Any

import pytest
from fake import SetUp, advance, at, greeted, listen, loop, price, settle, subscribed
from loops import VirtualLoop

LOOP = VirtualLoop

EXPIRING = {
    "type": "token_expiring",
    "expires_at": "2026-11-21T03:41:47Z",
    "timestamp": "2026-11-21T03:40:47Z",
}


class Asked:
    """A provider that the test answers by hand."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[str]] = []

    async def __call__(self) -> str:
        self.futures.append(asyncio.get_running_loop().create_future())
        return await self.futures[-1]


def tokens() -> tuple[list[str], Any]:
    given: list[str] = []

    def token() -> str:
        given.append(f"t{len(given) + 1}")
        return given[-1]

    return given, token


async def test_1_a_token_that_comes_after_its_connection_is_gone_is_not_used_for_the_next_one() -> None:
    asked = Asked()
    it = SetUp(token=asked)
    await settle()
    it.client.reconnect()
    await settle()
    assert len(asked.futures) == 2
    assert asked.futures[0].cancelled(), "the old request is not awaited"
    assert not it.gateway.sockets
    asked.futures[1].set_result("new")
    await settle()
    assert it.socket.token == "new"

    # A renewal belongs to its connection too.
    await it.socket.greet(subject="alice")
    await it.socket.say(EXPIRING)
    await it.socket.drop()
    await advance(1.5)
    assert asked.futures[2].cancelled()
    asked.futures[3].set_result("newer")
    await settle()
    await it.socket.greet(subject="alice")
    assert it.socket.token == "newer"
    assert it.socket.of("auth") == []


async def test_2_reconnecting_does_not_double_renewals() -> None:
    given, token = tokens()
    it = SetUp(token=token)
    await settle()
    for wait_s in [1.5, 2.5, 4.5]:
        await it.socket.greet(subject="alice")
        await it.socket.say(EXPIRING)
        assert len(it.socket.of("auth")) == 1
        await it.socket.drop()
        await advance(wait_s)
    assert len(given) == 3 + 4, "one per connection, and one per renewal"


async def test_3_a_client_that_was_away_while_its_token_expired_comes_back_with_a_new_one() -> None:
    _, token = tokens()
    it = SetUp(token=token)
    await settle()
    await it.socket.greet(subject="alice")
    loop().sleep(3_600)
    await it.socket.drop(4006, "token_expired")
    await advance(1.5)
    assert it.socket.token == "t2"


async def test_4_a_fixed_token_is_presented_again_after_the_gateway_let_it_go_unless_it_is_invalid() -> None:
    it = SetUp(token="fixed")
    await settle()
    await it.socket.greet(subject="alice")
    await it.socket.say(EXPIRING)
    assert it.socket.of("auth") == [], "there is no other token"
    await it.socket.drop(4006, "token_expired")
    await advance(1.5)
    assert [one.token for one in it.gateway.sockets] == ["fixed", "fixed"]
    await it.socket.greet(subject="alice")
    assert it.said == ["connecting", "open", "waiting", "connecting", "open"]

    # An invalid fixed token is final.
    await it.socket.drop(4501, "unauthorized")
    await advance(120)
    assert it.said[-1] == "failed"
    assert len(it.gateway.sockets) == 2


async def test_5_a_renewal_that_fails_is_not_tried_for_ever_and_what_has_ended_asks_for_none() -> None:
    asked: list[None] = []

    def token() -> str:
        asked.append(None)
        if len(asked) > 1:
            raise OSError("the identity provider is away")
        return "first"

    it = SetUp(token=token)
    errors: list[str] = []
    it.client.on_error(lambda code, _: errors.append(code))
    await settle()
    it.gateway.subscribes()
    await it.socket.greet(subject="alice")
    await it.socket.say(EXPIRING)
    for _ in range(10):
        await advance(25)
        await it.socket.say({"type": "heartbeat", "timestamp": at()})
    assert len(asked) == 2
    assert errors == ["token_unavailable"]
    assert it.client.status.state == "open", "a failed renewal ends nothing"

    it.client.close()
    await advance(600)
    assert len(asked) == 2


async def test_5_a_renewal_that_never_comes_is_not_waited_for_for_ever() -> None:
    asked = Asked()
    it = SetUp(token=asked)
    errors: list[str] = []
    it.client.on_error(lambda code, _: errors.append(code))
    await settle()
    asked.futures[0].set_result("first")
    await settle()
    await it.socket.greet(subject="alice")
    await it.socket.say(EXPIRING)
    await advance(10)
    assert (errors, it.client.status.state) == (["token_unavailable"], "open")


async def test_6_a_position_moves_when_the_handlers_have_had_the_entry_also_one_that_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = SetUp()
    it.gateway.subscribes()
    sub = it.client.zone("pjm", snapshot=False)
    seen: list[Any] = []

    def first(entry: Any, _: Any) -> None:
        assert isinstance(sub.position, dict)
        seen.append((entry["offset"], sub.position["offset"]))
        raise LookupError("of the first handler")

    sub.on_entry(first)
    sub.on_entry(lambda entry, _: seen.append(entry["offset"]))
    await settle()
    await it.socket.greet()
    await it.socket.say(price(1), price(2))
    assert seen == [(1, 0), 1, (2, 1), 2], "the second handler received it, and the connection continues"
    assert caplog.text.count("LookupError: of the first handler") == 2

    await it.socket.drop()
    await advance(1.5)
    await it.socket.greet()
    assert it.socket.of("subscribe")[0]["since"] == {"zone:pjm": {"epoch": "e1", "offset": 2}}


async def test_7_an_overdue_timer_does_not_end_a_healthy_connection() -> None:
    it = await greeted()

    # Blocked for an hour. The heartbeats that arrived meanwhile wait in the socket, behind the
    # timers.
    loop().sleep(3_600)
    await settle()  # silence is noticed late, and a heartbeat requested once more
    await advance(1)
    assert it.socket.of("heartbeat") == [{"type": "heartbeat"}]
    loop().sleep(3_600)  # and blocked again, before the answer
    await settle()
    assert it.client.status.state == "open", "the socket is read first"
    await it.socket.say({"type": "heartbeat_ack", "timestamp": at()})
    await advance(30)
    assert it.client.status.state == "open"
    assert len(it.gateway.sockets) == 1


async def test_7_a_dead_connection_is_still_found() -> None:
    it = await greeted()
    await advance(74.999)
    assert it.client.status.state == "open"
    assert it.socket.of("heartbeat") == [{"type": "heartbeat"}]
    await advance(0.001)
    assert it.client.status.state == "waiting"
    assert (it.states[-1].code, it.states[-1].reason) == (1006, "silence")
    assert it.gateway.sockets[0].is_closed

    # If the loop is blocked again and again, timers are late each time.
    await advance(1.5)
    await it.socket.greet()
    for _ in range(5):
        loop().sleep(59.999)
        await advance(0.001)
    assert it.client.status.state != "open"


async def test_7_whoever_is_heard_is_not_asked() -> None:
    it = await greeted()
    for _ in range(10):
        await advance(29.9)
        await it.socket.say({"type": "heartbeat", "timestamp": at()})
    assert it.socket.sent == []
    assert it.client.status.state == "open"


async def test_10_an_address_or_a_token_that_cannot_be_had_once_does_not_end_the_attempts() -> None:
    addresses: list[None] = []
    asked: list[None] = []

    async def address() -> str:
        addresses.append(None)
        if len(addresses) == 1:
            raise OSError("no address now")
        return "wss://gateway.test/base/"

    async def token() -> str:
        asked.append(None)
        if len(asked) == 1:
            raise OSError("no token now")
        return "t"

    it = SetUp(address, token=token)
    await advance(1.5 + 2.5)
    assert [(one.state, one.reason) for one in it.states] == [
        ("connecting", None),
        ("waiting", "no address now"),
        ("connecting", None),
        ("waiting", "no token now"),
        ("connecting", None),
    ]
    assert [one.url for one in it.gateway.sockets] == ["wss://gateway.test/base/ws"]

    # A provider that never answers is not awaited forever, and an invalid address is an error.
    never = SetUp(token=Asked())
    await advance(10)
    assert (never.client.status.state, never.client.status.reason) == ("waiting", "timed out")
    wrong = SetUp(lambda: "localhost:8080")
    await settle()
    assert (wrong.client.status.state, wrong.client.status.reason) == (
        "waiting",
        "not an address: localhost:8080",
    )


async def test_11_a_channel_subscribed_to_while_the_token_is_fetched_is_subscribed_to_once() -> None:
    asked = Asked()
    it = SetUp(token=asked)
    it.gateway.subscribes()
    heard = listen(it.client.zone("pjm"))
    it.client.zone("ercot").close()
    await settle()
    asked.futures[0].set_result("t")
    await settle()
    await it.socket.greet(subject="alice")
    assert [one["channels"] for one in it.socket.of("subscribe")] == [["zone:pjm"]]
    assert it.socket.of("unsubscribe") == []
    await it.socket.say(price(1))
    assert heard == [1]


async def test_12_nothing_is_queued_for_the_next_connection() -> None:
    it = SetUp()
    assert not it.client.send({"type": "ping"})
    await settle()
    assert not it.client.send({"type": "ping"}), "not even before the greeting"
    await it.socket.greet()
    it.socket.takes = False
    assert it.client.send({"type": "ping"})
    assert it.client.send({"type": "ping"})
    await it.socket.drop()
    assert not it.client.send({"type": "ping"})
    await advance(1.5)
    await it.socket.greet()
    assert it.socket.sent == [], "messages for the old socket are not sent on the new one"


# Specific to Python


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    await subscribed(it.socket)
    entries = sub.entries()
    had: list[int] = []
    for offset in range(1, 40):
        waiting = asyncio.ensure_future(anext(entries))
        for _ in range(offset % 4):
            await asyncio.sleep(0)
        # The entry and the timeout occur at the same time, in either order.
        if offset % 2:
            it.socket.put(json.dumps(price(offset)))
            for _ in range(offset % 5):
                await asyncio.sleep(0)
            waiting.cancel()
        else:
            waiting.cancel()
            it.socket.put(json.dumps(price(offset)))
        await asyncio.wait([waiting])
        if not waiting.cancelled():
            given: Any = waiting.result()
            had.append(given["offset"])
        await settle()
    while len(had) < 39:
        entry: Any = await asyncio.wait_for(anext(entries), 1)
        had.append(entry["offset"])
    assert had == list(range(1, 40))


async def test_two_tasks_do_not_share_what_a_loop_has() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    await subscribed(it.socket)
    entries = sub.entries()
    first = asyncio.ensure_future(anext(entries))
    await settle()
    with pytest.raises(RuntimeError, match="another task waits"):
        await anext(entries)
    await it.socket.say(price(1))
    given: Any = await first
    assert given["offset"] == 1


async def test_a_loop_that_was_left_is_forgotten_and_one_that_is_kept_goes_on() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    await subscribed(it.socket)

    async def one_of(entries: Any) -> int:
        async for entry in entries:
            return int(entry["offset"])
        raise AssertionError

    reading = asyncio.ensure_future(one_of(sub))
    await settle()
    await it.socket.say(price(1))
    assert await reading == 1
    del reading
    gc.collect()
    assert len(sub._readers) == 0, "nothing is kept for it"

    kept = sub.entries()
    await it.socket.say(price(2), price(3))
    assert [await one_of(kept), kept.position] == [2, {"epoch": "e1", "offset": 2}]
    await it.socket.say(price(4))
    assert [await one_of(kept), await one_of(kept)] == [3, 4]
