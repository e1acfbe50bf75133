"""The state of a connection, and when it reconnects."""

import math
import random as _random
from collections.abc import Callable
from dataclasses import dataclass

from ._types import State

ATTEMPTS_MAX = 5
FINAL = (1000, 1002, 1003, 1007, 1009)


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the connection."""

    state: State
    attempt: int = 0
    """The number of the current or next attempt in a row; 0 while connected."""
    attempts_max: int = ATTEMPTS_MAX
    code: int | None = None
    """The close code of the previous connection, as in the protocol; 1006 if it broke."""
    reason: str | None = None
    """The reason: one of the protocol's words, or a text for people."""
    retry_in_s: float | None = None
    """How many seconds until the next attempt."""
    message: str = ""
    """A sentence for the user."""

    def in_full(self) -> str:
        """The message with code and reason, if any, for a log."""
        why = " ".join(str(part) for part in (self.code, self.reason) if part)
        return f"{self.message} ({why})" if why else self.message


class ConnectionFailed(Exception):
    """The client has given up, until `client.reconnect()`."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.in_full())
        self.status = status


def delay_s(attempt: int, random: Callable[[], float] = _random.random) -> float:
    """The delay before attempt 1, 2, …: 1, 2, 4, 8, 16 s, plus a random part of up to 1 s."""
    return 2.0 ** (attempt - 1) + random()


def is_final(code: int) -> bool:
    """Whether a close code says not to reconnect."""
    return code in FINAL or 4500 <= code <= 4999


def describe(status: Status) -> str:
    """The sentence for the user, in English."""
    match status.state:
        case "connecting":
            if status.attempt:
                return f"Reconnecting ({status.attempt} of {status.attempts_max})…"
            return "Connecting…"
        case "open":
            return "Connected."
        case "waiting":
            wait = math.ceil(status.retry_in_s or 0)
            return f"Connection lost. Next try in {wait} s ({status.attempt} of {status.attempts_max})."
        case "failed":
            if status.code == 4501:
                return "Sign in again to reconnect."
            return "Connection lost. Reconnect to try again."
        case "closed":
            return "Disconnected."
