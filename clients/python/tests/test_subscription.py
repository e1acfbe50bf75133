"""What a subscription reports, over any number of connections."""

import asyncio
import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from fake import (
    BEGAN,
    Message,
    SetUp,
    advance,
    at,
    greeted,
    kinds,
    listen,
    loop,
    price,
    settle,
    subscribed,
)
from loops import VirtualLoop

from zonewire import SubscriptionError, ZoneSubscription

LOOP = VirtualLoop


def shown(sub: ZoneSubscription[Any]) -> dict[str, Any]:
    return {key: entry["price"] for key, entry in sub.latest().items()}


def resync(epoch: str, offset: int, recovered: bool, **more: Any) -> Message:
    return {
        "type": "resync",
        "channel": "zone:pjm",
        "old_epoch": "e",
        "epoch": epoch,
        "offset": offset,
        "recovered": recovered,
        **more,
    }


def snapshot_end(epoch: str, offset: int, recovered: bool) -> Message:
    return {
        "type": "snapshot_end",
        "channel": "zone:pjm",
        "epoch": epoch,
        "offset": offset,
        "recovered": recovered,
    }


GAP = {"type": "gap", "channel": "zone:pjm", "snapshot": False, "reason": "log"}


async def test_resumes_where_it_was_without_any_entry_before_after_some_and_twice() -> None:
    it = await greeted()
    heard = listen(it.client.zone("pjm", snapshot=False))
    await settle()

    async def again() -> None:
        await it.socket.drop()
        await advance(9)
        await it.socket.greet()

    def since() -> Any:
        return it.socket.of("subscribe")[-1].get("since")

    assert since() is None
    await subscribed(it.socket, epoch="u.1", offset=0)
    await again()
    assert since() == {"zone:pjm": {"epoch": "u.1", "offset": 0}}
    await subscribed(it.socket, epoch="e1", offset=0, top=2)
    await it.socket.say(price(1), price(2))
    await again()
    assert since() == {"zone:pjm": {"epoch": "e1", "offset": 2}}
    await it.socket.say(price(9))  # no gateway does so: nothing arrives before a channel is subscribed to
    await again()  # lost before it was answered
    assert since() == {"zone:pjm": {"epoch": "e1", "offset": 2}}
    await subscribed(it.socket, offset=2, top=3)
    await it.socket.say(price(3), resync("f.e1.3", 0, True, gap=0))
    await again()
    assert since() == {"zone:pjm": {"epoch": "f.e1.3", "offset": 0}}
    assert heard == [1, 2, 3]


async def test_resumes_at_another_gateway() -> None:
    it = await greeted(url=["http://a.test", "http://b.test"])
    it.client.zone("pjm", snapshot=False)
    await subscribed(it.socket, epoch="u.1")
    await it.socket.drop()
    await advance(1.5)
    assert it.socket.url == "ws://b.test/ws"
    await it.socket.greet()
    assert it.socket.of("subscribe")[-1]["since"] == {"zone:pjm": {"epoch": "u.1", "offset": 0}}


async def test_what_is_missing_is_told_with_its_number_where_there_is_one() -> None:
    it = await greeted()
    heard = listen(it.client.zone("pjm", since="e1:3"))
    await settle()
    assert it.socket.of("subscribe") == [
        {
            "type": "subscribe",
            "id": 1,
            "channels": ["zone:pjm"],
            "since": {"zone:pjm": "e1:3"},
            "snapshot": False,
        }
    ]
    await subscribed(it.socket, offset=10, top=11, recovered=False, gap=7)
    await it.socket.say(price(11), resync("e2", 0, False), price(1, id="g2-1", missedBefore=True))
    assert heard == [{**GAP, "missed": 7}, 11, GAP, GAP, 1]


async def test_repeated_entries_are_dropped_from_a_recovered_false_until_a_recovered_true_and_only_then() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    heard = listen(sub)
    await subscribed(it.socket)
    await it.socket.say(price(1), price(2))
    await it.socket.say(price(3, id="g1-2"))  # nothing is dropped without a warning
    await it.socket.drop()
    await advance(1.5)
    await it.socket.greet()
    await subscribed(it.socket, epoch="e2", offset=0, top=4, recovered=False, gap=None)
    await it.socket.say(price(1), price(2))
    await it.socket.say({"type": "skipped", "channel": "zone:pjm", "offset": 3, "reason": "unreadable"})
    await it.socket.say(price(4))
    assert kinds(heard) == [1, 2, 3, "gap", 3, 4]
    assert sub.position == {"epoch": "e2", "offset": 4}
    await it.socket.say(resync("e3", 0, True, gap=0), price(1))
    assert heard[-1] == 1


async def test_the_position_moves_also_over_what_is_dropped() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    await subscribed(it.socket)
    await it.socket.say(price(1), resync("e2", 6, False), price(7, id="g1-1"))
    assert sub.position == {"epoch": "e2", "offset": 7}


async def test_remembers_as_many_ids_as_it_is_told_to() -> None:
    it = await greeted()
    heard = listen(it.client.zone("pjm", snapshot=False, ids_max=2))
    await subscribed(it.socket)
    await it.socket.say(*map(price, [1, 2, 3]), resync("e2", 0, False), *map(price, [3, 2, 1]))
    assert kinds(heard) == [1, 2, 3, "gap", 1]

    # Also after a snapshot, which starts over.
    await it.socket.say(resync("e3.s", 0, False, snapshot=True), snapshot_end("e3", 0, False))
    heard.clear()
    await it.socket.say(*map(price, [1, 2, 3, 3, 2, 1, 4]))
    assert heard == [1, 2, 3, 1, 4]

    none = listen(it.client.zone("none", snapshot=False, ids_max=0))
    await subscribed(it.socket, recovered=False, gap=None)
    await it.socket.say(*[price(offset, channel="zone:none") for offset in [1, 1]])
    assert kinds(none) == ["gap", 1, 1]


async def test_begins_with_a_snapshot_which_what_follows_is_merged_with() -> None:
    it = await greeted()
    sub = it.client.zone("pjm")
    ends: list[bool] = []
    sub.on_message(lambda message: ends.append(message["recovered"]) if message["type"] == "snapshot_end" else None)
    await settle()
    assert it.socket.of("subscribe")[0]["snapshot"] is True
    await subscribed(it.socket, epoch="e1.s", offset=9, top=9, snapshot=True)

    async def snapshot(offset: int, key: str, **more: Any) -> None:
        await it.socket.say(price(offset, key=key, snapshot=True, **more))

    await snapshot(3, "A")
    await snapshot(5, "B")
    await snapshot(7, "C", type="key_removed", price=None)
    assert sub.position == {"epoch": "e1.s", "offset": 9}, "a part of a snapshot cannot be resumed"
    assert sub.status == "catching_up"
    await it.socket.say(snapshot_end("e1", 9, True))
    assert sub.status == "live"
    await it.socket.say(price(10, key="A"))
    await it.socket.say(price(11, key="C", late=True, id="g1-2"))  # older than its removal
    assert shown(sub) == {"A": 10, "B": 5}

    await it.socket.drop()
    await advance(1.5)
    assert sub.status == "waiting"
    assert shown(sub) == {"A": 10, "B": 5}, "the previous table is shown meanwhile"
    await it.socket.greet()
    request = it.socket.of("subscribe")[0]
    assert (request["since"], request["snapshot"]) == ({"zone:pjm": {"epoch": "e1", "offset": 11}}, True)

    # The position is in a log that is gone: the channel starts over, and again before the snapshot has
    # ended.
    await subscribed(it.socket, epoch="e2.s", offset=2, top=2, recovered=False, gap=None, snapshot=True)
    await snapshot(1, "A", id="h-1", price=41)
    await it.socket.say(resync("e3.s", 2, False, snapshot=True))
    await snapshot(2, "D", id="h-2", price=42)
    assert shown(sub) == {"A": 41, "B": 5, "D": 42}
    await it.socket.say(snapshot_end("e3", 2, False))
    assert shown(sub) == {"A": 41, "B": 5, "D": 42}, "the snapshot was incomplete"
    await it.socket.say(resync("e4.s", 3, False, snapshot=True))
    await snapshot(3, "D", id="h-3", price=43)
    await it.socket.say(snapshot_end("e4", 3, True))
    assert shown(sub) == {"D": 43}

    # Entries from before a snapshot do not count.
    heard = listen(sub)
    await it.socket.say(resync("e5.s", 3, False, snapshot=True))
    await snapshot(3, "D", id="h-3", price=43, missedBefore=True)
    assert kinds(heard) == ["gap", 3], "and an old gap is not reported"
    assert heard[0]["snapshot"] is True
    await it.socket.say(snapshot_end("e5", 3, True))
    assert ends == [True, False, True, True]
    assert sub.latest() is sub.latest(), "the same mapping until something changes"


async def test_a_snapshot_that_is_cut_short_is_followed_by_another_and_no_gap_is_told_for_that() -> None:
    it = await greeted()
    sub = it.client.zone("pjm")
    heard = listen(sub)
    await subscribed(it.socket, epoch="e1.s", offset=9, top=9, snapshot=True)
    await it.socket.say(price(3, key="A", snapshot=True))
    await it.socket.drop()
    await advance(1.5)
    await it.socket.greet()
    await subscribed(it.socket, epoch="e1.s", offset=12, top=12, recovered=False, gap=None, snapshot=True)
    await it.socket.say(price(11, key="B", snapshot=True))
    assert shown(sub) == {"A": 3, "B": 11}
    await it.socket.say(snapshot_end("e1", 12, True))
    assert shown(sub) == {"B": 11}
    assert heard == [3, 11]

    # Nor does a snapshot that was cut short continue if none follows.
    await it.socket.say(resync("e2.s", 12, False, snapshot=True))
    await it.socket.drop()
    await advance(2.5)
    await it.socket.greet()
    await subscribed(it.socket, epoch="e1", offset=12, top=12)
    assert sub.status == "live"


async def test_a_removal_of_all_keys_stands_in_the_table_by_itself_also_one_of_a_snapshot() -> None:
    it = await greeted()
    sub = it.client.zone("pjm")
    await subscribed(it.socket, epoch="e1.s", offset=9, top=9, snapshot=True)
    await it.socket.say(price(8, type="zone_removed", key=None, price=None, snapshot=True))
    await it.socket.say(price(9, key="B", snapshot=True), snapshot_end("e1", 9, True))
    await it.socket.say(price(10, key="A", id="g1-7", late=True))
    assert shown(sub) == {"B": 9}


async def test_catches_up_before_it_is_live() -> None:
    it = await greeted()
    sub = it.client.zone("pjm")
    heard: list[str] = []
    sub.on_status(heard.append)
    await subscribed(it.socket, offset=4, top=5, snapshot=True)
    await it.socket.say(snapshot_end("e1", 4, True), price(5))
    assert heard == ["catching_up"]
    await it.socket.say({"type": "caught_up", "channel": "zone:pjm"})
    await it.socket.drop()
    assert heard == ["catching_up", "live", "waiting"]


class Reference:
    """The rule of the last entry of a key, exactly as in the protocol document."""

    def __init__(self) -> None:
        self.last: dict[str, Message] = {}

    @staticmethod
    def is_newer(entry: Message, held: Message | None) -> bool:
        if not held or not entry.get("late"):
            return True
        [by, number], [held_by, held_number] = entry["id"].split("-"), held["id"].split("-")
        if by == held_by:
            return int(number) >= int(held_number)
        return bool(
            entry["timestamp"] > held["timestamp"] or (entry["timestamp"] == held["timestamp"] and by > held_by)
        )

    def take(self, entry: Message) -> None:
        key = entry.get("key", "")
        if not entry.get("snapshot"):
            if key == "":
                for other, held in list(self.last.items()):
                    if self.is_newer(entry, held):
                        del self.last[other]
            if not self.is_newer(entry, self.last.get(key) or self.last.get("")):
                return
        self.last[key] = entry


async def test_the_table_goes_by_the_rule_of_the_last_entry_of_a_key_whatever_comes() -> None:
    draw = random.Random(7)
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    await subscribed(it.socket)
    reference = Reference()
    for offset in range(1, 5_001):
        kind = draw.choice(["price_update"] * 24 + ["key_removed"] * 8 + ["zone_removed"])
        entry = price(
            offset,
            type=kind,
            id=f"g{draw.randrange(3)}-{draw.randrange(200)}",
            late=draw.choice([True, None]),
            price=offset if kind == "price_update" else None,
            key=None if kind == "zone_removed" else f"k{draw.randrange(6)}",
            timestamp=datetime.fromtimestamp(BEGAN + draw.randrange(50) / 1000, UTC).isoformat(
                timespec="milliseconds"
            ),
        )
        sub._take(entry)
        reference.take(entry)
        expected = {key: held["price"] for key, held in reference.last.items() if held["type"] == "price_update"}
        assert shown(sub) == expected, f"after {entry}"


async def test_a_removal_is_forgotten_after_a_day() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    await subscribed(it.socket)
    timestamp = at()

    async def late(offset: int) -> None:
        await it.socket.say(price(offset, late=True, timestamp=timestamp))

    async def a_day_later() -> None:
        loop().sleep(86_400.001)
        await it.socket.say({"type": "heartbeat", "timestamp": at()})

    await it.socket.say(price(1, type="key_removed", id="g1-9", price=None, timestamp=timestamp))
    await it.socket.say({"type": "heartbeat", "timestamp": at()})
    await late(2)
    assert shown(sub) == {}
    await a_day_later()
    await late(3)
    assert shown(sub) == {"WESTERN HUB": 3}
    await a_day_later()
    await it.socket.say(price(4, key="other"))
    assert shown(sub) == {"WESTERN HUB": 3, "other": 4}, "a price is not"


async def test_entries_of_a_kind_that_only_a_newer_gateway_knows_count() -> None:
    it = await greeted()
    sub = it.client.subscribe("ticker:btc", snapshot=False)
    heard: list[str] = []
    sub.on_entry(lambda entry, _: heard.append(entry["type"]))
    await subscribed(it.socket)
    await it.socket.say({"type": "trade", "channel": "ticker:btc", "offset": 1, "id": "g1-1"})
    await it.socket.say({"type": "greeting", "channel": "ticker:btc"}, {"type": "weather"})
    assert heard == ["trade"]
    assert sub.position == {"epoch": "e1", "offset": 1}


async def test_messages_of_an_earlier_subscription_are_not_taken_for_the_new_one() -> None:
    it = await greeted()
    first = it.client.zone("pjm", snapshot=False)
    heard_first = listen(first)
    await subscribed(it.socket)
    first.close()
    heard = listen(it.client.zone("pjm", snapshot=False))
    await it.socket.say(price(1), {"type": "unsubscribed", "channel": "zone:pjm", "code": "finished"})
    old = {"id": 1, "channel": "zone:pjm", "epoch": "e0", "offset": 5, "top": 5, "recovered": True, "gap": 0}
    await it.socket.say({"type": "subscribed", **old})
    await it.socket.say({"type": "unsubscribed", "id": 2, "channel": "zone:pjm"}, price(6))
    assert heard == []
    await subscribed(it.socket, offset=1, top=1)
    await it.socket.say(price(2))
    assert (heard_first, heard) == ([(None, None)], [2])
    assert [(one["type"], one["id"]) for one in it.socket.sent] == [
        ("subscribe", 1),
        ("unsubscribe", 2),
        ("subscribe", 3),
    ]


async def test_closing_a_subscription_that_has_ended_leaves_its_successor_alone() -> None:
    it = await greeted()
    first = it.client.zone("pjm")
    await subscribed(it.socket)
    await it.socket.say({"type": "unsubscribed", "channel": "zone:pjm", "code": "forbidden"})
    second = it.client.zone("pjm")
    await subscribed(it.socket)
    first.close()
    await settle()
    assert second.status == "live"
    assert it.socket.of("unsubscribe") == []


async def test_a_channel_is_subscribed_to_once_at_a_time() -> None:
    it = await greeted()
    sub = it.client.zone("pjm")
    with pytest.raises(ValueError, match="zone:pjm is subscribed to already"):
        it.client.subscribe("zone:pjm")
    assert it.client.subscriptions["zone:pjm"] is sub
    it.client.order("FE1C3314-8FC0-4C94-B141-DAD534CA416E")
    name = "order:fe1c3314-8fc0-4c94-b141-dad534ca416e"
    assert name in it.client.subscriptions, "in the form in which gateways name it"
    with pytest.raises(ValueError):
        it.client.subscribe(name.upper().replace("ORDER", "order"))
    sub.close()
    assert "zone:pjm" not in it.client.subscriptions


async def test_ends_as_the_gateway_says_and_is_not_subscribed_to_again() -> None:
    it = await greeted()
    order = it.client.order("fe1c3314-8fc0-4c94-b141-dad534ca416e")

    async def read() -> None:
        async for _ in order:
            pass

    reading = asyncio.ensure_future(read())
    refused, taken = it.client.zone("with space"), it.client.zone("secret")
    ends: list[Any] = []
    for sub in (order, refused, taken):
        sub.on_end(lambda code, message, sub=sub: ends.append((sub.channel, code, message)))  # type: ignore[misc]
    await settle()
    one, two, three = it.socket.of("subscribe")
    for request in (one, three):
        told = {"epoch": "e", "offset": 0, "top": 0, "recovered": True, "gap": 0}
        await it.socket.say({"type": "subscribed", "id": request["id"], "channel": request["channels"][0], **told})
    error = {"code": "invalid_channel", "temporary": False, "message": "no such"}
    await it.socket.say({"type": "error", "id": two["id"], "channel": "zone:with space", **error})
    await it.socket.say({"type": "unsubscribed", "channel": "zone:secret", "code": "forbidden"})
    await it.socket.say({"type": "unsubscribed", "channel": order.channel, "code": "finished"})
    assert ends == [
        ("zone:with space", "invalid_channel", "no such"),
        ("zone:secret", "forbidden", None),
        (order.channel, "finished", None),
    ]
    assert [sub.status for sub in (order, refused, taken)] == ["ended", "ended", "ended"]
    await reading  # which is no error
    await it.socket.drop()
    await advance(1.5)
    await it.socket.greet()
    assert it.socket.sent == []


async def test_an_error_that_is_temporary_leaves_the_request_as_it_is() -> None:
    it = await greeted()
    sub = it.client.zone("pjm")
    errors: list[str] = []
    sub.on_error(lambda error: errors.append(error["code"]))
    error = {"code": "storage_unavailable", "temporary": True, "message": "", "channel": "zone:pjm"}
    await it.socket.say({"type": "error", "id": 1, **error})
    assert (errors, sub.status) == (["storage_unavailable"], "waiting")
    await subscribed(it.socket)
    assert sub.status == "live"


async def test_a_client_that_is_told_to_come_later_comes_then() -> None:
    it = await greeted()
    sub = it.client.zone("pjm")
    later = {"code": "rate_limited", "temporary": False, "message": "", "retry_after_ms": 3_000}
    await it.socket.say({"type": "error", "id": 1, "channel": "zone:pjm", **later})
    await advance(2.999)
    assert len(it.socket.of("subscribe")) == 1
    await advance(0.001)
    assert len(it.socket.of("subscribe")) == 2
    await subscribed(it.socket)
    assert sub.status == "live"

    # Not twice on a connection that is made meanwhile.
    it.client.zone("ercot")
    await settle()
    request = it.socket.of("subscribe")[-1]["id"]
    await it.socket.say({"type": "error", "id": request, "channel": "zone:ercot", **later})
    await it.socket.drop()
    await advance(1.5)
    await it.socket.greet()
    await advance(5)
    assert len(it.socket.of("subscribe")) == 2


async def test_errors_of_no_subscription_are_reported_by_the_client() -> None:
    it = await greeted()
    errors: list[str] = []
    it.client.on_error(lambda code, _: errors.append(code))
    it.client.zone("pjm").close()
    await it.socket.say({"type": "error", "code": "unknown_type", "temporary": False, "message": ""})
    # For a subscription that was closed:
    await it.socket.say({"type": "error", "id": 2, "code": "not_subscribed", "temporary": False, "message": ""})
    assert errors == ["unknown_type"]


async def test_a_renewal_that_is_refused_ends_nothing_and_is_told() -> None:
    given = iter(["t1", "t2"])
    it = SetUp(token=lambda: next(given))
    errors: list[str] = []
    it.client.on_error(lambda code, _: errors.append(code))
    await settle()
    await it.socket.greet(subject="alice", authentication="required")
    await it.socket.say({"type": "token_expiring", "expires_at": at(60)})
    (auth,) = it.socket.of("auth")
    assert auth["token"] == "t2"
    await it.socket.say(
        {"type": "error", "id": auth["id"], "code": "invalid_token", "temporary": False, "message": ""}
    )
    assert (errors, it.client.status.state) == (["invalid_token"], "open")


async def test_a_client_without_a_required_token_stops() -> None:
    it = SetUp()
    it.client.zone("pjm")
    await settle()
    assert it.socket.token is None
    await it.socket.greet(authentication="required")
    status = it.client.status
    assert (status.state, status.code, status.message) == ("failed", 4501, "Sign in again to reconnect.")
    assert it.socket.sent == []

    # A provider may have another token soon.
    given = iter([None, "good"])
    other = SetUp(token=lambda: next(given))
    await settle()
    await other.socket.greet(authentication="required")
    assert other.client.status.state == "waiting"
    await advance(1.5)
    assert other.socket.token == "good"


async def test_a_token_that_is_invalid_in_a_header_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    it = SetUp(token="secret with space\r\nHost: x")
    await settle()
    assert not it.gateway.sockets
    assert it.client.status.reason == "the token has characters that are invalid in a header"
    assert "secret" not in caplog.text


async def test_knows_which_channels_an_outage_is_about() -> None:
    it = await greeted()
    pjm, ercot = it.client.zone("pjm"), it.client.zone("ercot")
    states: list[str] = []
    it.client.on_backend(lambda backend: states.append(f"{backend['state']} {backend.get('scope')}"))

    async def say(**more: Any) -> tuple[bool, bool]:
        told = {"storage_backend": "redis", "state": "degraded", "since": "", "timestamp": at()}
        await it.socket.say({"type": "backend_state", **told, **more})
        return pjm.degraded, ercot.degraded

    assert (pjm.degraded, ercot.degraded) == (False, False)
    assert await say(scope="all") == (True, True)
    assert await say(scope="some", channels=["zone:pjm"]) == (True, False)
    # The channel may be among those for which there was no room.
    assert await say(scope="some", channels=["zone:pjm"], more_channels=3) == (True, True)
    assert await say(scope="all", state="healthy") == (False, False)
    assert states == ["degraded all", "degraded some", "degraded some", "healthy all"]


async def test_knows_how_old_an_entry_is_by_the_clock_of_the_gateway_and_for_how_long_nothing_came() -> None:
    it = SetUp()
    await settle()
    await it.socket.greet(timestamp=at(-3_600 - 0.25))  # an hour behind, and 250 ms on the way
    await it.socket.say({"type": "heartbeat", "timestamp": at(-3_600 - 0.02)})
    await it.socket.say({"type": "heartbeat", "timestamp": at(-3_600 - 0.09)})
    assert it.client.age_s({"timestamp": at(-3_600 - 2.02)}) == pytest.approx(2, abs=0.002)
    await advance(0.7)
    assert it.client.silent_s() == pytest.approx(0.7)
    # Times of the gateway are more precise than Python's.
    assert it.client.age_s({"timestamp": "2026-11-21T03:40:47.024527946Z"})


async def test_a_loop_has_all_entries_and_gaps_in_order_and_ends_with_its_subscription() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    heard: list[Any] = []
    positions: list[Any] = []

    async def read() -> None:
        entries = sub.entries()
        async for entry in entries:
            heard.append(("missed", entry.get("missed")) if entry["type"] == "gap" else entry["offset"])
            positions.append(entries.position and entries.position["offset"])  # type: ignore[index]

    reading = asyncio.ensure_future(read())
    await subscribed(it.socket)
    await it.socket.say(price(1), price(2), resync("e1", 7, False, gap=5), price(8))
    sub.close()
    await reading
    await settle()
    assert heard == [1, 2, ("missed", 5), 8]
    assert positions == [1, 2, 7, 8], "where to resume once the yielded items are processed"
    assert len(it.socket.of("unsubscribe")) == 1


async def test_a_loop_that_is_slow_is_told_how_much_it_missed() -> None:
    it = await greeted()
    sub = it.client.zone("pjm", snapshot=False)
    entries = sub.entries(queue_max=3)
    await subscribed(it.socket)
    await it.socket.say(*map(price, range(1, 11)))
    heard: list[Any] = [await anext(entries) for _ in range(4)]
    assert [one.get("offset") or (one["reason"], one["missed"]) for one in heard] == [("reader", 7), 8, 9, 10]
    assert sub.status == "live"

    # Gaps of the log for which there is no room are counted in it.
    await it.socket.say(price(11), resync("e1", 20, False, gap=9), *map(price, range(21, 25)))
    heard = [await anext(entries) for _ in range(4)]
    assert [one.get("offset") or (one["reason"], one["missed"]) for one in heard] == [
        ("reader", 11),
        22,
        23,
        24,
    ]

    # The position is behind what was yielded, so that dropped entries can still be read from it.
    assert entries.position == {"epoch": "e1", "offset": 24}
    await it.socket.say(*map(price, range(25, 30)))
    gap: Any = await anext(entries)
    assert (gap["missed"], entries.position) == (2, {"epoch": "e1", "offset": 24})


async def test_a_loop_raises_what_the_gateway_refused() -> None:
    it = await greeted()
    entries = it.client.zone("with space").entries()
    reading = asyncio.ensure_future(anext(entries))
    await settle()
    error = {"code": "invalid_channel", "temporary": False, "message": "no such"}
    await it.socket.say({"type": "error", "id": 1, **error})
    with pytest.raises(SubscriptionError, match="zone:with space: no such") as refused:
        await reading
    assert refused.value.code == "invalid_channel"
    with pytest.raises(SubscriptionError):
        await anext(entries)


async def test_a_block_ends_its_subscription() -> None:
    it = await greeted()
    with it.client.zone("pjm") as sub:
        await subscribed(it.socket)
    await settle()
    assert sub.status == "ended"
    assert len(it.socket.of("unsubscribe")) == 1
    assert it.client.subscriptions == {}
    sub.close()
    await settle()
    assert len(it.socket.of("unsubscribe")) == 1


async def test_closing_the_client_ends_all_of_its_subscriptions_and_loops() -> None:
    it = await greeted()
    sub = it.client.zone("pjm")

    async def read() -> None:
        async for _ in sub:
            pass

    reading = asyncio.ensure_future(read())
    await settle()
    it.client.close()
    await reading
    await it.client.wait_closed()
    assert sub.status == "ended"
    assert it.socket.is_closed


async def test_decimals_have_the_digits_that_were_sent() -> None:
    exact = await greeted(decimals=True)
    prices = exact.client.zone("pjm", snapshot=False)
    order = exact.client.subscribe("order:fe1c3314-8fc0-4c94-b141-dad534ca416e", snapshot=False)
    had: list[Any] = []
    prices.on_entry(lambda entry, _: had.append(entry))
    order.on_entry(lambda entry, _: had.append(entry))
    await settle()
    for request in exact.socket.of("subscribe"):
        told = {"epoch": "e1", "offset": 0, "top": 0, "recovered": True, "gap": 0}
        await exact.socket.say(
            {"type": "subscribed", "id": request["id"], "channel": request["channels"][0], **told}
        )
    text = json.dumps(price(1, price="PRICE", bid=40, own="OWN", quantity=None))
    exact.socket.put(text.replace('"PRICE"', "39432.480").replace('"OWN"', "0.1000000000000000000000000001"))
    exact.socket.put(json.dumps({"type": "routing", "channel": order.channel, "offset": 1, "progress": 12.5}))
    await settle()
    entry, update = had
    assert str(entry["price"]) == "39432.480"
    assert entry["bid"] == Decimal(40) and isinstance(entry["bid"], Decimal)
    assert str(entry["own"]) == "0.1000000000000000000000000001"
    assert (entry["offset"], type(entry["offset"])) == (1, int)
    assert (update["progress"], type(update["progress"])) == (12.5, float)
    latest = prices.latest()["WESTERN HUB"]
    assert latest.get("price") == Decimal("39432.48")
