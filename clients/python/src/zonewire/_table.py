"""The last entry of each key."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic

from ._types import P

DAY_S = 86_400.0

Entry = dict[str, Any]


def seconds(timestamp: str) -> float:
    """A time of the gateway, in seconds since 1970."""
    return datetime.fromisoformat(timestamp).timestamp()


def _is_newer(entry: Entry, held: Entry | None) -> bool:
    if held is None or not entry.get("late"):
        return True
    by, number = entry["id"].split("-")
    held_by, held_number = held["id"].split("-")
    if by == held_by:
        return int(number) >= int(held_number)
    return (entry["timestamp"], by) > (held["timestamp"], held_by)


class Table(Generic[P]):
    """The last entries by the protocol's rule; removals are remembered, so that a late price does not restore its
    key."""

    def __init__(self) -> None:
        self._last: dict[str, Entry] = {}  # a removal of all keys, `zone_removed`, is at ''
        self._prices: dict[str, P] | None = None  # made on request

    def take(self, entry: Entry) -> None:
        """Enters an entry."""
        key = entry.get("key", "")
        self._prices = None
        if not entry.get("snapshot"):
            if key == "":
                self._last = {other: held for other, held in self._last.items() if not _is_newer(entry, held)}
            if not _is_newer(entry, self._last.get(key) or self._last.get("")):
                return
        self._last[key] = entry

    def keep(self, keys: set[str]) -> None:
        """Removes all keys but these."""
        self._last = {key: entry for key, entry in self._last.items() if key in keys}
        self._prices = None

    def forget(self, now: float) -> None:
        """Forgets removals after a day, as gateways do."""
        for key, entry in list(self._last.items()):
            if entry["type"] != "price_update" and now - seconds(entry["timestamp"]) > DAY_S:
                del self._last[key]

    def prices(self) -> Mapping[str, P]:
        """The last entries that are prices; the same mapping until something changes."""
        if self._prices is None:
            prices: dict[str, Any] = {
                key: entry for key, entry in self._last.items() if entry["type"] == "price_update"
            }
            self._prices = prices
        return self._prices
