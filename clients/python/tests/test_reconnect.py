"""When the client reconnects, and what it reports meanwhile."""

import asyncio
from typing import Any

import pytest
from fake import FakeGateway, SetUp, advance, greeted, listen, price, settle, subscribed
from loops import VirtualLoop

from zonewire import ConnectionFailed, Refused, Status, connect, delay_s, describe, is_final

LOOP = VirtualLoop


async def exhaust(it: SetUp) -> list[float]:
    """Fails each attempt until the client has given up, and returns the delay before each."""
    waits: list[float] = []
    for _ in range(20):
        await settle()
        await it.socket.drop()
        status = it.client.status
        if status.state != "waiting":
            break
        assert status.retry_in_s is not None
        waits.append(status.retry_in_s)
        await advance(status.retry_in_s)
    return waits


async def test_waits_1_2_4_8_16_s_and_up_to_1_s_drawn_anew_and_then_fails_until_told_to_reconnect() -> None:
    drawn = [0, 0.25, 0.5, 0.999, 1, 0.1]
    it = SetUp(random=lambda: drawn.pop(0))
    assert await exhaust(it) == [1, 2.25, 4.5, 8.999, 17]
    assert drawn == [0.1]
    assert len(it.gateway.sockets) == 6
    assert it.client.status == Status("failed", 5, 5, 1006, "", None, "Connection lost. Reconnect to try again.")
    await advance(3_600)
    assert len(it.gateway.sockets) == 6

    it.client.reconnect()
    await settle()
    assert len(it.gateway.sockets) == 7
    await it.socket.drop()
    status = it.client.status
    assert (status.state, status.retry_in_s) == ("waiting", 1.1), "with a full set of attempts"


async def test_comes_back_when_the_wait_is_over_and_not_before() -> None:
    it = await greeted()
    await it.socket.drop()
    await advance(1.499)
    assert len(it.gateway.sockets) == 1
    await advance(0.001)
    assert len(it.gateway.sockets) == 2


def test_never_waits_less_than_the_rule_says_nor_more() -> None:
    for attempt in range(1, 6):
        assert delay_s(attempt, lambda: 0) == 2 ** (attempt - 1)
        assert delay_s(attempt, lambda: 1) == 2 ** (attempt - 1) + 1
        assert 2 ** (attempt - 1) <= delay_s(attempt) <= 2 ** (attempt - 1) + 1


async def test_each_state_has_a_sentence_for_the_user_which_may_be_another_one() -> None:
    it = await greeted()
    await it.socket.drop()
    await advance(1.5)
    await it.socket.drop(4500, "disconnected")
    it.client.close()
    assert [(status.state, status.message) for status in it.states] == [
        ("connecting", "Connecting…"),
        ("open", "Connected."),
        ("waiting", "Connection lost. Next try in 2 s (1 of 5)."),
        ("connecting", "Reconnecting (1 of 5)…"),
        ("failed", "Connection lost. Reconnect to try again."),
        ("closed", "Disconnected."),
    ]
    assert describe(Status("failed", code=4501)) == "Sign in again to reconnect."

    other = SetUp(text=lambda status: f"{status.state} {status.attempt}")
    assert other.client.status.message == "connecting 0"
    broken = SetUp(text=lambda status: str(1 // 0))
    assert broken.client.status.message == "Connecting…"


async def test_every_change_is_one_event() -> None:
    it = await greeted()
    await advance(6)
    await it.socket.say({"type": "closing", "code": 4001, "reason": "slow_consumer", "retry_after_ms": 0})
    await it.socket.drop(4001, "slow_consumer")
    await advance(1.5)
    await it.socket.greet()
    it.client.close()
    it.client.close()
    assert [(one.state, one.code, one.reason, one.attempt) for one in it.states] == [
        ("connecting", None, None, 0),
        ("open", None, None, 0),
        ("waiting", 4001, "slow_consumer", 1),
        ("connecting", None, None, 1),
        ("open", None, None, 0),
        ("closed", 1000, None, 0),
    ]
    assert it.client.status is it.states[-1]


async def test_only_a_connection_that_held_for_5_s_gives_attempts_back() -> None:
    it = SetUp()
    await settle()
    for attempt in range(1, 5):
        await it.socket.greet()
        await advance(4.999)
        await it.socket.drop()
        assert it.client.status.attempt == attempt
        assert it.client.status.retry_in_s is not None
        await advance(it.client.status.retry_in_s)
    await it.socket.greet()
    await advance(5)
    await it.socket.drop()
    assert it.client.status.attempt == 1


async def test_how_long_the_gateway_says_is_kept() -> None:
    it = await greeted()
    closing = {"type": "closing", "code": 4000, "reason": "shutting_down", "retry_after_ms": 4_768}
    await it.socket.say(closing)
    await it.socket.drop(4000, "shutting_down")
    assert (it.client.status.state, it.client.status.retry_in_s) == ("waiting", 4.768)
    await advance(4.767)
    assert it.client.status.state == "waiting"
    await advance(0.001)
    assert it.client.status.state == "connecting"
    await it.socket.greet()
    await it.socket.say(closing)
    await it.socket.drop(4000, "shutting_down")
    it.client.reconnect()
    assert it.client.status.state == "connecting", "the user may"


async def test_what_a_gateway_said_about_its_end_does_not_apply_to_the_next_one() -> None:
    it = await greeted()
    closing = {"type": "closing", "code": 4000, "reason": "shutting_down", "retry_after_ms": 4_768}
    await it.socket.say(closing)
    await it.socket.drop()
    await advance(4.768)
    await it.socket.greet()
    await it.socket.drop()
    assert (it.client.status.code, it.client.status.retry_in_s) == (1006, 2.5)
    await advance(2.5)
    await it.socket.greet()
    await it.socket.say(closing)
    await it.socket.drop(4500, "disconnected")
    assert (it.client.status.state, it.client.status.code) == ("failed", 4500), "the close frame has the last word"


async def test_the_close_code_decides_whether_to_come_back() -> None:
    final = [1000, 1002, 1003, 1007, 1009, 4500, 4501, 4502, 4999]
    others = [1001, 1005, 1006, 1008, 1010, 1011, 1012, 1013, 1015, 3000, 4000, 4006, 4123, 4499, 5000]
    assert [code for code in final + others if is_final(code)] == final
    for code in final + others:
        it = await greeted(slow_retry_s=60)
        await it.socket.drop(code)
        state = "failed" if code in final else "waiting"
        assert (it.client.status.state, it.client.status.code) == (state, code)
        await advance(120)
        assert (len(it.gateway.sockets) > 1) == (code not in final), code
        it.client.close()


async def test_closing_tells_the_code_where_the_close_frame_is_lost() -> None:
    it = await greeted()
    await it.socket.say({"type": "closing", "code": 4500, "reason": "disconnected"})
    await it.socket.drop(1006)
    status = it.client.status
    assert (status.state, status.code, status.reason) == ("failed", 4500, "disconnected")


async def test_a_refused_upgrade_is_final_where_it_is_4xx_other_than_429() -> None:
    for status in [400, 403, 404, 408, 421, 426]:
        it = SetUp()
        it.gateway.dials = [Refused(status, "origin_not_allowed")]
        it.client.reconnect()
        await settle()
        assert it.client.status.state == "failed", status
        assert it.client.status.reason == f"HTTP {status} origin_not_allowed"
        await advance(120)
        assert not it.gateway.sockets
    for status in [301, 429, 500, 502, 503]:
        it = SetUp()
        it.gateway.dials = [Refused(status)]
        it.client.reconnect()
        await settle()
        assert (it.client.status.state, it.client.status.retry_in_s) == ("waiting", 1.5), status
        assert it.client.status.reason == f"HTTP {status}"
        await advance(1.5)
        assert len(it.gateway.sockets) == 1


async def test_a_busy_gateway_is_left_alone_for_as_long_as_it_says() -> None:
    it = SetUp()
    it.gateway.dials = [Refused(503, "too_many_connections", 7), Refused(503, "too_many_connections", 1)]
    it.client.reconnect()
    await settle()
    assert it.client.status.retry_in_s == 7
    await advance(7)
    assert it.client.status.retry_in_s == 2.5, "and it is not retried sooner than usual"


async def test_a_token_that_does_not_hold_is_final_but_where_there_may_be_another() -> None:
    fixed = SetUp(token="t")
    fixed.gateway.dials = [Refused(401, "unauthorized")]
    fixed.client.reconnect()
    await settle()
    assert (fixed.client.status.state, fixed.client.status.code) == ("failed", 4501)
    asked = SetUp(token=lambda: "t")
    asked.gateway.dials = [Refused(401, "unauthorized")]
    asked.client.reconnect()
    await settle()
    assert (asked.client.status.state, asked.client.status.code) == ("waiting", 4501)


async def test_tries_once_a_minute_after_giving_up_where_it_is_asked_to() -> None:
    it = SetUp(slow_retry_s=60)
    sub = it.client.zone("pjm")
    waiting = asyncio.ensure_future(anext(sub.entries()))
    await exhaust(it)
    assert it.client.status.state == "failed"
    for minutes in range(1, 4):
        await advance(60.5)
        assert len(it.gateway.sockets) == 6 + minutes
        await it.socket.drop()
        assert it.client.status.state == "failed"
    assert not waiting.done(), "a loop waits for it too"
    await advance(60.5)
    await it.socket.greet()
    await it.socket.say({"type": "closing", "code": 4004, "reason": "rate_limited", "retry_after_ms": 90_000})
    await it.socket.drop(4004)
    await advance(89.999)
    assert it.client.status.state == "failed"
    await advance(0.001)
    assert it.client.status.state == "connecting"
    await it.socket.greet()
    await advance(6)
    await it.socket.drop()
    assert it.client.status.attempt == 1

    # After a final code nothing is tried any more, and a loop raises.
    await advance(2)
    await it.socket.greet()
    await it.socket.drop(4500)
    with pytest.raises(ConnectionFailed):
        await waiting
    await advance(3_600)
    assert it.client.status.state == "failed"


async def test_a_socket_that_never_opens_and_a_gateway_that_never_greets_are_given_up() -> None:
    it = SetUp()
    it.gateway.dials = [None]
    it.client.reconnect()
    await advance(10 + 1.5)
    late = it.socket
    await advance(10)
    assert [(one.state, one.reason) for one in it.states[1:]] == [
        ("connecting", None),
        ("waiting", "timed out"),
        ("connecting", None),
        ("waiting", "timed out"),
    ]
    await late.greet()  # late messages are ignored
    assert it.said[-1] == "waiting"
    assert late.is_closed


async def test_there_is_one_socket_at_a_time() -> None:
    it = SetUp()
    for n in range(5):
        it.client.reconnect()
        await settle()
        if n % 2:
            await it.socket.greet()
        it.client.reconnect()
        await settle()
        assert [one.is_closed for one in it.gateway.sockets] == [True] * (len(it.gateway.sockets) - 1) + [False]
        for one in it.gateway.sockets[:-1]:
            await one.drop(1000)
        await advance(n)
        assert it.client.status.state != "failed", "the end of an old socket is ignored"
    it.client.close()
    await advance(60)
    assert all(one.is_closed for one in it.gateway.sockets)


async def test_handlers_that_begin_anew_or_end_it_all_in_the_middle_of_a_change_are_heeded() -> None:
    again = SetUp()
    first = [True]
    again.client.on_state(
        lambda status: again.client.reconnect() if status.state == "waiting" and first.pop() else None
    )
    await settle()
    await again.socket.greet()
    await again.socket.drop()
    assert len(again.gateway.sockets) == 2
    await again.socket.greet()
    assert again.client.status.state == "open"

    over = SetUp()
    over.client.on_state(lambda status: over.client.close() if status.state == "waiting" else None)
    over.client.zone("pjm").on_status(lambda status: over.client.reconnect() if status == "waiting" else None)
    over.gateway.subscribes()
    await settle()
    await over.socket.greet()
    await over.socket.drop()
    assert over.client.status.state == "connecting", "by the subscription's handler, which was called first"
    await over.socket.drop()
    assert over.client.status.state == "closed"
    await advance(60)
    assert len(over.gateway.sockets) == 2
    with pytest.raises(RuntimeError, match="closed"):
        over.client.zone("pjm")
    over.client.reconnect()
    assert over.client.status.state == "closed"


async def test_a_handler_of_messages_may_end_it_all() -> None:
    it = SetUp()
    it.client.on_message(lambda _: it.client.close())
    await settle()
    await it.socket.greet()
    assert it.client.status.state == "closed"
    await it.client.wait_closed()
    assert it.socket.is_closed


async def test_what_gives_the_address_or_the_token_may_end_it_all() -> None:
    for what in ("url", "token"):
        it: SetUp

        def close() -> str:
            it.client.close()
            return "https://gateway.test"

        it = SetUp(close) if what == "url" else SetUp(token=close)
        await settle()
        assert it.client.status.state == "closed"
        assert all(one.is_closed for one in it.gateway.sockets)


async def test_what_is_not_json_or_not_of_the_protocol_ends_the_connection_and_nothing_is_lost_by_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for text, reason in [
        ('{"type":"price_up', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"type":"closing","code":4000,"retry_after_ms":NaN}', "not JSON"),
        ('{"type":"closing","code":"soon"}', "not of this protocol"),
        ("17", "not of this protocol"),
        ("{}", "not of this protocol"),
        ('{"type":"subscribed","channel":"zone:pjm","id":1}', "not of this protocol"),
        ('{"type":"heartbeat","timestamp":"tomorrow"}', "not of this protocol"),
    ]:
        it = await greeted()
        it.client.zone("pjm")
        await settle()
        it.socket.put(text)
        await settle()
        assert (it.client.status.state, it.client.status.reason) == ("waiting", reason), text
        it.client.close()


async def test_an_invalid_address_is_refused_at_once() -> None:
    for wrong in ["localhost:8080", "/relative", "ftp://gateway.test", "http://", ""]:
        with pytest.raises(ValueError, match="not an address"):
            connect(wrong)
    with pytest.raises(ValueError, match="there is no address"):
        connect([])
    with pytest.raises(ValueError) as refused:
        connect("https://alice:secret@gateway.test")
    assert "secret" not in str(refused.value)


def test_without_a_loop_there_is_no_client() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        connect("https://gateway.test")


async def test_the_socket_is_at_ws_below_the_address_however_that_is_written() -> None:
    for address, socket, http in [
        ("https://gateway.test", "wss://gateway.test/ws", "https://gateway.test"),
        ("http://gateway.test:8080/", "ws://gateway.test:8080/ws", "http://gateway.test:8080"),
        ("wss://gateway.test/base/?x=1#y", "wss://gateway.test/base/ws", "https://gateway.test/base"),
        ("ws://[::1]:8080", "ws://[::1]:8080/ws", "http://[::1]:8080"),
        ("HTTPS://Gateway.test", "wss://Gateway.test/ws", "https://Gateway.test"),
    ]:
        it = SetUp(address)
        await settle()
        assert it.socket.url == socket
        assert await it.client.address() == http


async def test_each_attempt_goes_to_the_next_gateway_and_requests_to_the_one_that_it_is_connected_to() -> None:
    it = SetUp(["http://a.test", "http://b.test"])
    await settle()
    assert it.socket.url == "ws://a.test/ws"
    await it.socket.greet()
    assert await it.client.address() == "http://a.test"
    await it.socket.drop()
    await advance(1.5)
    assert it.socket.url == "ws://b.test/ws"
    await it.socket.greet()
    assert await it.client.address() == "http://b.test"
    await it.socket.drop()
    # Meanwhile requests alternate between the gateways, and attempts are not affected by them.
    assert [await it.client.address() for _ in range(3)] == ["http://a.test", "http://b.test", "http://a.test"]
    await advance(2.5)
    assert it.socket.url == "ws://a.test/ws"


async def test_the_address_may_come_of_a_function_that_is_async_or_not() -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return "http://later.test/"

    for url, socket in [(lambda: "http://now.test", "ws://now.test/ws"), (later, "ws://later.test/ws")]:
        it = SetUp(url)
        await settle()
        assert it.socket.url == socket


async def test_opened_waits_for_a_connection_and_says_where_there_will_be_none() -> None:
    it = SetUp()
    waiting = asyncio.ensure_future(it.client.opened())
    await settle()
    await it.socket.drop()
    await advance(1.5)
    assert not waiting.done()
    await it.socket.greet()
    await waiting
    await it.client.opened()

    await it.socket.drop(4500, "disconnected")
    with pytest.raises(ConnectionFailed, match=r"Reconnect to try again\. \(4500 disconnected\)") as failed:
        await it.client.opened()
    assert failed.value.status is it.client.status
    it.client.close()
    with pytest.raises(ConnectionFailed):
        await it.client.opened()


async def test_a_loop_is_told_that_the_client_has_given_up_and_goes_on_after_it_has_not() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    await subscribed(it.socket)
    heard: list[Any] = []
    entries = sub.entries()

    async def read() -> None:
        async for entry in entries:
            heard.append(entry["type"] == "gap" or entry["offset"])

    reading = asyncio.ensure_future(read())
    await it.socket.say(price(1))
    await it.socket.drop(4500, "disconnected")
    with pytest.raises(ConnectionFailed):
        await reading
    reading = asyncio.ensure_future(read())
    it.client.reconnect()
    await settle()
    await it.socket.greet()
    assert it.socket.of("subscribe")[0]["since"] == {"zone:pjm": {"epoch": "e1", "offset": 1}}
    await subscribed(it.socket, offset=1, top=2)
    await it.socket.say(price(2))
    sub.close()
    await reading
    assert heard == [1, 2]

    # If a handler reconnects at once, a loop notices nothing.
    other = it.client.zone("ercot", snapshot=False)
    it.client.on_state(lambda status: it.client.reconnect() if status.state == "failed" else None)
    reading = asyncio.ensure_future(anext(other.entries()))  # type: ignore[arg-type]
    await settle()
    await it.socket.drop(4500)
    assert it.client.status.state == "connecting"
    await settle()
    assert not reading.done()
    reading.cancel()


async def test_a_socket_that_takes_nothing_is_left() -> None:
    it = await greeted()
    it.socket.takes = False
    for _ in range(1_025):
        assert it.client.send({"type": "ping"})
        await asyncio.sleep(0)
    assert not it.client.send({"type": "ping"})
    assert (it.client.status.state, it.client.status.reason) == ("waiting", "the gateway accepts nothing")


async def test_there_may_be_more_subscriptions_than_messages_that_wait() -> None:
    it = SetUp()
    for n in range(3_000):
        it.client.zone(f"z{n}")
    it.gateway.subscribes()
    await settle()
    await it.socket.greet()
    await advance(1)
    assert {sub.status for sub in it.client.subscriptions.values()} == {"live"}


async def test_a_handler_is_called_no_more_once_it_was_taken_away() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    heard: list[str] = []

    def first(*_: Any) -> None:
        heard.append("a")
        remove()

    sub.on_entry(first)
    remove = sub.on_entry(lambda *_: heard.append("b"))
    await subscribed(it.socket)
    await it.socket.say(price(1), price(2))
    assert heard == ["a", "a"]


async def test_a_handler_that_would_have_to_be_awaited_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(*_: Any) -> None:
        raise AssertionError

    it = await greeted()
    with pytest.raises(TypeError, match="async for"):
        it.client.on_state(handler)
    it.client.on_state(lambda status: handler(status))
    await it.socket.drop()
    assert "a handler must be a plain function" in caplog.text


async def test_what_was_left_open_is_closed_with_the_block_also_where_that_is_cancelled() -> None:
    gateway = FakeGateway()
    entered = asyncio.Event()

    async def block() -> None:
        async with connect("https://gateway.test", dial=gateway.dial) as client:
            await settle()
            await gateway.socket.greet()
            with client.zone("pjm") as sub:
                listen(sub)
                entered.set()
                async for _ in sub:
                    pass

    task = asyncio.ensure_future(block())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gateway.socket.is_closed
