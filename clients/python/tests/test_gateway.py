"""The client with real gateways, as users run them."""

import asyncio
import json

import subprocess
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM
from typing import Any

import pytest
from loops import fast, on
from real import BINARY, Gateway, Proxy, Redis, follow, needs_gateway, needs_redis, until

from zonewire import Client, PriceUpdate, SubscriptionError, ZoneSubscription

EVERY = ("--set", "channels.default_lane=every")


class Numbered(PriceUpdate):
    n: int


Numbers = ZoneSubscription[Numbered]


class Record:
    """Everything that a subscription reported: the numbers of prices, and gaps."""

    def __init__(self, sub: Numbers) -> None:
        self.had: list[int] = []
        self.late: list[int] = []
        self.gaps: list[int | None] = []
        sub.on_entry(self._take)
        sub.on_gap(lambda gap: self.gaps.append(gap.get("missed")))

    def _take(self, entry: Any, _: Any) -> None:
        if entry["type"] == "price_update" and not entry.get("snapshot"):
            self.had.append(entry["n"])
            if entry.get("late"):
                self.late.append(entry["n"])


def price(n: int) -> dict[str, Any]:
    return {"key": f"k{n % 7}", "price": n, "n": n}


def numbers(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def table(sub: Numbers) -> dict[str, Any]:
    return {key: entry["price"] for key, entry in sub.latest().items()}


async def is_open(client: Client) -> None:
    await until(lambda: client.status.state == "open", lambda: client.status)


async def is_live(sub: Numbers) -> None:
    await until(lambda: sub.status == "live", lambda: sub)


@needs_gateway
async def test_greets_sends_a_snapshot_and_what_follows_and_answers_for_what_is_wrong() -> None:
    gateway = await Gateway.started("serve", "--storage", "memory")
    for n in numbers(1, 20):
        await gateway.publish("pjm", price(n))
    client = follow(gateway.url)
    sub = client.zone("pjm", price=Numbered)
    record = Record(sub)
    await is_live(sub)
    assert table(sub) == {"k0": 14, "k1": 15, "k2": 16, "k3": 17, "k4": 18, "k5": 19, "k6": 20}
    await gateway.publish("pjm", price(21))
    await gateway.ask("DELETE", "/api/zones/pjm/keys/k1")
    await until(lambda: record.had and "k1" not in sub.latest(), "a price and a removal")
    assert table(sub) == {"k0": 21, "k2": 16, "k3": 17, "k4": 18, "k5": 19, "k6": 20}
    assert client.backend and client.backend["storage_backend"] == "in-memory"
    assert -1 < client.age_s(sub.latest()["k0"]) < 20

    with pytest.raises(SubscriptionError) as refused:
        async for _ in client.zone("no such zone"):
            pass
    assert refused.value.code == "invalid_channel"
    assert client.status.state == "open"


@needs_gateway
async def test_prices_have_the_digits_that_their_publisher_wrote() -> None:
    gateway = await Gateway.started("serve", "--storage", "memory")
    await gateway.publish("pjm", b'{"key":"K","price":39432.480,"bid":40,"own":0.10}')
    sub = follow(gateway.url, decimals=True).zone("pjm")
    await until(lambda: sub.status == "live", lambda: sub)
    entry: Any = sub.latest()["K"]
    assert [str(entry[field]) for field in ("price", "bid", "own")] == ["39432.480", "40", "0.10"]


@needs_gateway
@on(fast(20))
async def test_is_killed_and_started_again_what_is_gone_is_told_and_the_table_is_as_it_is_now() -> None:
    gateway = await Gateway.started("serve", "--storage", "memory", *EVERY)
    client = follow(gateway.url)
    every, shown = client.zone("all", price=Numbered, snapshot=False), client.zone("shown", price=Numbered)
    record = Record(every)
    await is_live(every)
    await is_live(shown)
    for n in numbers(1, 10):
        for zone in ("all", "shown"):
            await gateway.publish(zone, price(n))
    await until(lambda: len(record.had) == 10 and table(shown).get("k3") == 10, "ten prices")
    await gateway.kill()
    await until(lambda: client.status.state != "open", "noticed")
    assert client.status.code == 1006
    await gateway.start()
    for zone in ("all", "shown"):
        await gateway.publish(zone, price(11))
    client.reconnect()
    await until(lambda: len(record.had) == 11, lambda: record.had)
    await is_live(shown)
    assert record.had == numbers(1, 11)
    assert record.gaps == [None]
    await until(lambda: len(shown.latest()) == 1, lambda: table(shown))
    assert table(shown) == {"k4": 11}


@needs_gateway
@on(fast(100))
async def test_a_gateway_that_stands_still_is_left_and_nothing_is_lost() -> None:
    gateway = await Gateway.started("serve", "--storage", "memory", *EVERY)
    client = follow(gateway.url, connect_timeout_s=1_000)
    reasons: list[str | None] = []
    client.on_state(lambda status: reasons.append(status.reason))
    sub = client.zone("pjm", price=Numbered, snapshot=False)
    record = Record(sub)
    await is_live(sub)
    for n in numbers(1, 5):
        await gateway.publish("pjm", price(n))
    await until(lambda: len(record.had) == 5, "five")
    gateway.program.signal(SIGSTOP)
    await until(lambda: "silence" in reasons, lambda: client.status)
    gateway.program.signal(SIGCONT)
    for n in numbers(6, 9):
        await gateway.publish("pjm", price(n))
    client.reconnect()
    await until(lambda: len(record.had) == 9, lambda: record.had)
    assert (record.had, record.gaps) == (numbers(1, 9), [])


@needs_gateway
async def test_a_gateway_that_stops_says_when_to_come_back_which_is_kept() -> None:
    gateway = await Gateway.started("serve", "--storage", "memory", "--set", "http.drain_s=1")
    client = follow(gateway.url)
    told: list[int | None] = []
    client.on_message(
        lambda message: told.append(message.get("retry_after_ms")) if message["type"] == "closing" else None
    )
    await is_open(client)
    gateway.program.signal(SIGTERM)
    await until(lambda: client.status.state == "waiting", lambda: client.status)
    status = client.status
    assert told[0]
    assert (status.code, status.reason, status.retry_in_s) == (4000, "shutting_down", told[0] / 1000)
    assert await gateway.program.ended() == 0


@needs_gateway
async def test_an_order_comes_from_its_first_update_on_and_the_subscription_ends_after_its_last() -> None:
    sets = ("orders.paper.failure_rate=0", "connections.order_linger_ms=50")
    gateway = await Gateway.started("serve", "--storage", "memory", *[x for one in sets for x in ("--set", one)])
    client = follow(gateway.url)
    placed = await gateway.ask("POST", "/api/orders/execute", {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5})
    stages: list[str] = []
    async for update in client.order(json.loads(placed.body)["orderId"].upper()):
        if update["type"] not in stages:
            stages.append(update["type"])
    assert stages == ["routing", "building", "submitted", "confirmed"]


@needs_gateway
async def test_an_address_where_there_is_no_gateway_is_final_where_somebody_says_so() -> None:
    gateway = await Gateway.started("serve", "--storage", "memory")
    client = follow(f"{gateway.url}/nothing/here")
    await until(lambda: client.status.state == "failed", lambda: client.status)
    assert client.status.reason == "HTTP 404 not_found"


# Tokens


class Realm:
    """A gateway with authentication, and the key that signs its tokens."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "zonewire.toml"
        self.run("config", "init", str(folder))

    @staticmethod
    def run(*args: str) -> str:
        # In this environment, the program would take some variables for its settings.
        return subprocess.run([BINARY, *args], check=True, capture_output=True, text=True, env={}).stdout.strip()

    def token(self, subject: str, role: str, seconds: int = 600) -> str:
        of = ("--config", str(self.config), "--subject", subject, "--role", role)
        return self.run("token", "mint", *of, "--lifetime-s", str(seconds))

    async def gateway(self, *args: str) -> Gateway:
        return await Gateway.started("serve", "--config", str(self.config), "--storage", "memory", *args)


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return Realm(tmp_path / "zonewire")


@needs_gateway
async def test_a_token_is_presented_at_each_attempt_and_renewed_before_it_expires(realm: Realm) -> None:
    gateway = await realm.gateway(*EVERY)
    publisher = realm.token("feed", "publisher")
    given: list[str] = []

    async def token() -> str:
        given.append(realm.token("alice", "viewer", 4 if len(given) < 2 else 600))
        return given[-1]

    client = follow(gateway.url, token=token)
    sub = client.zone("pjm", price=Numbered, snapshot=False)
    record = Record(sub)
    subjects: list[Any] = []
    renewed: list[Any] = []

    def hear(message: Any) -> None:
        if message["type"] == "connection_established":
            subjects.append(message.get("subject"))
        elif message["type"] == "authenticated":
            renewed.append(message["subject"])

    client.on_message(hear)
    await is_live(sub)
    await gateway.publish("pjm", price(1), token=publisher)
    await until(lambda: len(renewed) == 2, lambda: (renewed, client.status))
    await gateway.publish("pjm", price(2), token=publisher)
    await until(lambda: record.had == [1, 2], lambda: record.had)
    assert (subjects, renewed, len(given)) == (["alice"], ["alice", "alice"], 3)
    assert client.status.state == "open"


@needs_gateway
@on(fast(20))
async def test_a_token_that_expires_ends_the_connection_and_the_next_one_resumes(realm: Realm) -> None:
    gateway = await realm.gateway(*EVERY)
    publisher = realm.token("feed", "publisher")
    given: list[str] = []

    def token() -> str:
        # The first token is not renewed in time.
        if len(given) == 1 and client.status.state == "open":
            raise OSError("the identity provider is away")
        given.append(realm.token("alice", "viewer", 600 if given else 3))
        return given[-1]

    client = follow(gateway.url, token=token, connect_timeout_s=200)
    codes: list[int | None] = []
    errors: list[str] = []
    client.on_state(lambda status: codes.append(status.code))
    client.on_error(lambda code, _: errors.append(code))
    sub = client.zone("pjm", price=Numbered, snapshot=False)
    record = Record(sub)
    await is_live(sub)
    await gateway.publish("pjm", price(1), token=publisher)
    await until(lambda: 4006 in codes, lambda: (codes, client.status))
    await gateway.publish("pjm", price(2), token=publisher)
    await until(lambda: record.had == [1, 2], lambda: (record.had, client.status))
    assert (record.gaps, errors) == ([], ["token_unavailable"])
    assert len(given) == 2


@needs_gateway
async def test_a_client_without_a_valid_token_does_not_come_back(realm: Realm) -> None:
    gateway = await realm.gateway()
    operator = realm.token("ops", "operator")
    nobody = follow(gateway.url)
    await until(lambda: nobody.status.state == "failed", lambda: nobody.status)
    assert (nobody.status.code, nobody.status.message) == (4501, "Sign in again to reconnect.")
    wrong = follow(gateway.url, token="nonsense")
    await until(lambda: wrong.status.state == "failed", lambda: wrong.status)
    assert wrong.status.code == 4501

    alice = follow(gateway.url, token=realm.token("alice", "viewer"))
    sub = alice.zone("pjm")
    await until(lambda: sub.status == "live", lambda: (sub, alice.status))
    answer = await gateway.ask("POST", "/api/auth/revoke", {"subject": "alice"}, operator)
    assert answer.status == 200, answer
    await until(lambda: alice.status.state == "failed", lambda: alice.status)
    assert alice.status.code == 4501

    # Subscriptions that one has no right to end individually, and nothing else does.
    bob = follow(gateway.url, token=realm.token("bob", "viewer"))
    with pytest.raises(SubscriptionError) as refused:
        async for _ in bob.order("fe1c3314-8fc0-4c94-b141-dad534ca416e"):
            pass
    assert refused.value.code == "forbidden"
    assert bob.status.state == "open"


# Two gateways with one Redis


async def two() -> tuple[Redis, Gateway, Gateway]:
    redis = await Redis.started()
    args = ("serve", "--storage", "redis", "--redis-url", redis.url, *EVERY)
    return redis, await Gateway.started(*args), await Gateway.started(*args)


@needs_redis
@on(fast(20))
async def test_a_client_goes_from_one_to_the_other_also_where_that_one_is_killed_and_loses_nothing() -> None:
    _, a, b = await two()
    at = a
    client = follow(lambda: at.url, connect_timeout_s=200)
    sub = client.zone("pjm", price=Numbered, snapshot=False)
    record = Record(sub)
    await is_live(sub)
    at = b  # before any entry arrived
    client.reconnect()
    for n in numbers(1, 10):
        await a.publish("pjm", price(n))
    await until(lambda: len(record.had) == 10, lambda: record.had)
    at = a
    client.reconnect()
    for n in numbers(11, 20):
        await b.publish("pjm", price(n))
    await until(lambda: len(record.had) == 20, lambda: record.had)
    await a.kill()
    at = b
    for n in numbers(21, 30):
        await b.publish("pjm", price(n))
    await until(lambda: len(record.had) == 30, lambda: record.had)
    await a.start()
    at = a
    client.reconnect()
    await a.publish("pjm", price(31))
    await until(lambda: len(record.had) == 31, lambda: record.had)
    assert (record.had, record.gaps) == (numbers(1, 31), [])


@needs_redis
@on(fast(20))
async def test_of_several_addresses_the_next_one_is_taken_when_a_gateway_is_killed() -> None:
    _, a, b = await two()
    client = follow([a.url, b.url], connect_timeout_s=200)
    sub = client.zone("pjm", price=Numbered, snapshot=False)
    record = Record(sub)
    await is_live(sub)
    await a.publish("pjm", price(1))
    await until(lambda: record.had == [1], lambda: record.had)
    await a.kill()
    await b.publish("pjm", price(2))
    await until(lambda: record.had == [1, 2], lambda: (record.had, client.status))
    assert await client.address() == b.url
    assert record.gaps == []


@needs_redis
@on(fast(20))
async def test_redis_is_pulled_and_comes_back_it_is_said_and_nothing_is_lost_or_doubled() -> None:
    redis, a, b = await two()
    at = a
    client = follow(lambda: at.url, connect_timeout_s=200)
    sub, shown = client.zone("pjm", price=Numbered, snapshot=False), client.zone("shown", price=Numbered)
    states: set[str] = set()
    client.on_backend(lambda backend: states.add(backend["state"]))
    record = Record(sub)
    await is_live(sub)
    await is_live(shown)

    async def say(gateway: Gateway, first: int, last: int) -> None:
        for n in numbers(first, last):
            for zone in ("pjm", "shown"):
                await gateway.publish(zone, price(n))

    await say(a, 1, 10)
    await redis.kill()
    await until(lambda: sub.degraded, "degraded")
    await say(a, 11, 20)
    await say(b, 21, 25)  # unreachable for this client until Redis is back
    await until(lambda: len(record.had) == 20, lambda: record.had)
    client.reconnect()
    await say(a, 26, 28)
    await until(lambda: len(record.had) == 23, lambda: record.had)
    await redis.start()
    await until(lambda: client.backend and client.backend["state"] == "healthy", lambda: client.backend)
    await say(b, 29, 30)
    await until(lambda: len(record.had) == 30, lambda: record.had)
    assert sorted(record.had) == numbers(1, 30)
    assert record.gaps == []
    assert set(numbers(21, 25)) <= set(record.late)
    assert states == {"healthy", "degraded", "recovering"}
    at = b
    client.reconnect()
    await say(a, 31, 31)
    await until(lambda: len(record.had) == 31 and table(shown).get("k3") == 31, lambda: record.had)
    latest = (await b.get("/api/zones/shown/latest"))["entries"]
    assert table(shown) == {entry["key"]: entry["price"] for entry in latest}


@needs_redis
@on(fast(100))
async def test_a_half_open_connection_is_left_for_the_other_gateway() -> None:
    _, a, b = await two()
    to_a, to_b = await Proxy.started(lambda: a.port), await Proxy.started(lambda: b.port)
    at = to_a
    client = follow(lambda: at.url, connect_timeout_s=1_000)
    sub = client.zone("pjm", price=Numbered, snapshot=False)
    record = Record(sub)
    await is_live(sub)
    await a.publish("pjm", price(1))
    await until(lambda: record.had == [1], "one")
    to_a.stall()
    at = to_b
    for n in numbers(2, 5):
        await a.publish("pjm", price(n))
    await until(lambda: len(record.had) == 5, lambda: (record.had, client.status))
    assert (record.had, record.gaps) == (numbers(1, 5), [])


@needs_redis
async def test_a_loop_that_is_cancelled_and_entered_again_and_again_has_every_entry() -> None:
    _, a, b = await two()
    client = follow([a.url, b.url])
    entries = client.zone("pjm", price=Numbered, snapshot=False).entries()
    await is_open(client)
    had: list[int] = []
    publishing = asyncio.ensure_future(_publish(a, 200))
    while len(had) < 200:
        waiting = asyncio.ensure_future(anext(entries))
        await asyncio.sleep(0)
        if len(had) % 3 == 0:
            waiting.cancel()
        try:
            entry = await asyncio.wait_for(waiting, 20)
        except asyncio.CancelledError:
            continue
        assert entry["type"] == "price_update"
        had.append(entry["n"])
    await publishing
    assert had == numbers(1, 200)


async def _publish(gateway: Gateway, count: int) -> None:
    for n in numbers(1, count):
        await gateway.publish("pjm", price(n))


@needs_gateway
async def test_sends_of_a_view_what_it_shows_and_what_it_leaves_out_is_no_gap() -> None:
    gateway = await Gateway.started("serve", "--storage", "memory")

    async def publish(*events: tuple[str, str, int]) -> None:
        body = [{"exchange": exchange, "symbol": symbol, "price": n} for exchange, symbol, n in events]
        answer = await gateway.ask("POST", "/api/events/ticker", body)
        assert answer.status == 200, answer

    await publish(("a", "B", 1), ("b", "B", 2), ("a", "C", 3))
    client = follow(gateway.url)
    sub = client.event("ticker", exchange="a")
    assert (sub.channel, client.event("candle", symbol="B").channel) == ("event:ticker:a:*", "event:candle:*:B:*")
    had: list[Any] = []
    gaps: list[Any] = []
    sub.on_entry(lambda entry, _: had.append(entry))
    sub.on_gap(gaps.append)
    await until(lambda: sub.status == "live", lambda: sub)
    assert [(entry.get("snapshot"), entry["data"]["price"]) for entry in had] == [(True, 1), (True, 3)]
    await publish(("b", "B", 4), ("b", "B", 5), ("a", "B", 6))
    await until(lambda: len(had) == 3, lambda: had)
    client.reconnect()
    await publish(("b", "B", 7), ("a", "B", 8))
    await until(lambda: len(had) == 4, lambda: had)
    assert [entry["data"]["price"] for entry in had[2:]] == [6, 8]
    assert gaps == []
    client.close()
    await client.wait_closed()
