"""The types of the wire are those of the gateway, and users' programs are typed by them."""

import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, assert_type

import zonewire
from zonewire import (
    Client,
    DecimalPriceUpdate,
    Entry,
    Gap,
    OrderEntry,
    PriceUpdate,
    Subscription,
    ZoneEntry,
    ZoneSubscription,
    connect,
)

HERE = Path(__file__).parent.parent
SCHEMA = HERE.parent.parent / "docs/schema/zonewire.schema.json"


def test_the_types_are_what_the_schema_gives() -> None:
    if SCHEMA.exists():  # not where the package stands alone
        subprocess.run([sys.executable, HERE / "scripts/make_wire.py", "--check"], check=True)


def test_everything_that_is_public_says_what_it_does() -> None:
    for name in zonewire.__all__:
        one: Any = getattr(zonewire, name)
        if callable(one) and getattr(one, "__module__", "").startswith("zonewire"):
            assert one.__doc__, name
            for method, value in vars(one).items() if isinstance(one, type) else []:
                if callable(value) and not method.startswith("_"):
                    assert value.__doc__, f"{name}.{method}"


def test_the_version_is_that_of_the_gateway() -> None:
    if SCHEMA.exists():
        version = next(
            line
            for line in (HERE.parent.parent / "Cargo.toml").read_text().splitlines()
            if line.startswith("version")
        )
        assert version in (HERE / "pyproject.toml").read_text()


if TYPE_CHECKING:
    # What users write, as mypy sees it.

    class Price(PriceUpdate):
        market: str

    class Ticker(TypedDict):
        type: str
        symbol: str

    async def of_users(client: Client) -> None:
        assert_type(connect("http://gateway"), Client)
        assert_type(connect(["http://a", "http://b"], decimals=True), Client[DecimalPriceUpdate])
        pjm = client.zone("pjm")
        assert_type(pjm, ZoneSubscription[PriceUpdate])
        assert_type(pjm.latest(), Mapping[str, PriceUpdate])
        async for entry in pjm:
            assert_type(entry, ZoneEntry | Gap)
            if entry["type"] == "price_update":
                assert_type(entry.get("price"), float | None)
            elif entry["type"] == "gap":
                assert_type(entry.get("missed"), int | None)
            elif entry["type"] == "key_removed":
                assert_type(entry["key"], str)
        async for exact in connect("http://gateway", decimals=True).zone("pjm"):
            if exact["type"] == "price_update":
                assert_type(exact.get("bid"), Decimal | None)
        async for own in client.zone("pjm", price=Price):
            if own["type"] == "price_update":
                assert_type(own["market"], str)
        assert_type(client.order("…"), Subscription[OrderEntry])
        assert_type(client.subscribe("zone:pjm"), Subscription[Entry])
        assert_type(client.subscribe("event:ticker", entry=Ticker), Subscription[Ticker])
        pjm.on_entry(lambda entry, position: print(entry["type"], position["epoch"]))
