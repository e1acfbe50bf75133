"""How a connection is, and when it comes back."""

import math
import random as _random
from collections.abc import Callable
from dataclasses import dataclass

from ._types import State

ATTEMPTS_MAX = 5
FINAL = (1000, 1002, 1003, 1007, 1009)


@dataclass(frozen=True, slots=True)
class Status:
    """How the connection is."""

    state: State
    attempt: int = 0
    """Which attempt in a row this is, or waits to be; 0 while all is well."""
    attempts_max: int = ATTEMPTS_MAX
    code: int | None = None
    """The close code of the connection before, as in the protocol; 1006 where it broke."""
    reason: str | None = None
    """Why, in a word of the protocol or for people."""
    retry_in_s: float | None = None
    """How long it waits for the next attempt, in seconds."""
    message: str = ""
    """A sentence for the user."""

    def in_full(self) -> str:
        """The message, with code and reason where there are some, as for a log."""
        why = " ".join(str(part) for part in (self.code, self.reason) if part)
        return f"{self.message} ({why})" if why else self.message


class ConnectionFailed(Exception):
    """The client has given up, until `client.reconnect()`."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.in_full())
        self.status = status


def delay_s(attempt: int, random: Callable[[], float] = _random.random) -> float:
    """How long to wait before an attempt, counting from 1: 1, 2, 4, 8, 16 s, and up to 1 s at random."""
    return 2.0 ** (attempt - 1) + random()


def is_final(code: int) -> bool:
    """Whether a close code says not to come back."""
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
