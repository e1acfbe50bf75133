"""Prices and orders of a Zonewire gateway, through any number of lost connections."""

from ._client import Client, Token, Url, connect
from ._http import VERSION as __version__
from ._status import ConnectionFailed, Status, delay_s, describe, is_final
from ._subscription import Entries, Subscription, SubscriptionError, ZoneSubscription
from ._types import (
    Closed,
    Dial,
    EventEntry,
    EventType,
    Gap,
    OrderEntry,
    Refused,
    RegistryEntry,
    Socket,
    State,
    SubscriptionStatus,
    ZoneEntry,
)
from .orders import OrderError, place_order, submit_order, watch_order
from .wire import DecimalPriceUpdate, Entry, OrderFailed, OrderUpdate, Position, PriceUpdate

__all__ = [
    "Client",
    "Closed",
    "ConnectionFailed",
    "DecimalPriceUpdate",
    "Dial",
    "Entries",
    "Entry",
    "EventEntry",
    "EventType",
    "Gap",
    "OrderEntry",
    "OrderError",
    "OrderFailed",
    "OrderUpdate",
    "Position",
    "PriceUpdate",
    "Refused",
    "RegistryEntry",
    "Socket",
    "State",
    "Status",
    "Subscription",
    "SubscriptionError",
    "SubscriptionStatus",
    "Token",
    "Url",
    "ZoneEntry",
    "ZoneSubscription",
    "__version__",
    "connect",
    "delay_s",
    "describe",
    "is_final",
    "place_order",
    "submit_order",
    "watch_order",
]

for _one in (ConnectionFailed, SubscriptionError, OrderError):
    _one.__module__ = "zonewire"  # the name that users import, in tracebacks too
