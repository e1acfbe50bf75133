"""Places orders, and follows them to their end."""

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from decimal import Decimal
from typing import Any, cast

from . import wire
from ._client import Client
from ._events import call
from ._http import Answer
from ._status import ConnectionFailed
from ._subscription import Subscription, SubscriptionError
from ._types import OrderEntry

__all__ = ["OrderError", "place_order", "submit_order", "watch_order"]

Progress = Callable[[OrderEntry], object]
Missed = Callable[[int | None], object]


class OrderError(Exception):
    """An order that was not placed, that failed, or that could not be watched to its end."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        order_id: str | None = None,
        idempotency_key: str | None = None,
        problem: wire.Problem | None = None,
        failed: wire.OrderFailed | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        """Of the gateway (`invalid_order`, `queue_full`, …) or of the order (`cancelled`, `no_liquidity`, …).

        Or `unreachable`: there was no connection, and nothing was placed. `no_answer`: nobody knows whether it was
        placed, so place it again with the same key. `not_watched`: it was placed, and goes on.
        """
        self.message = message
        """For people; names each wrong field."""
        self.order_id = order_id
        """Absent where it is not known to be placed."""
        self.idempotency_key = idempotency_key
        """With which it was sent."""
        self.problem = problem
        """What the gateway refused, with each wrong field in `errors`."""
        self.failed = failed
        """How it failed: its last update."""


def to_json(value: Any) -> str:
    """As `json.dumps`, and a Decimal with its own digits.

    Raises:
        ValueError: a number is not finite.
    """
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"not a number of JSON: {value}")
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(key))}:{to_json(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(to_json, value)) + "]"
    return json.dumps(value, allow_nan=False)


def _body(answer: Answer) -> dict[str, Any]:
    """What stands between may answer with something else than JSON."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def submit_order(
    client: Client[Any],
    order: Mapping[str, Any],
    *,
    idempotency_key: str | None = None,
    place_for_s: float = 30,
    answer_s: float = 10,
) -> str:
    """Places an order, once, however often it has to be sent.

    It is sent with a key until there is an answer; where one may have been lost, to the same gateway, which knows
    the key also while Redis is away. A Decimal is sent with its own digits. To be cancelled is like a lost answer:
    the order may be placed.

    Args:
        client: whose gateway and token are used.
        order: what the gateway's `orders.schema` takes.
        idempotency_key: what makes repetitions harmless, for 24 hours. Default: a new one. Keep one to go on after
            a crash.
        place_for_s: how long it is sent again where there is no answer, or one that says "later".
        answer_s: how long one answer is waited for.

    Returns:
        The order's id: it is in the queue.

    Raises:
        OrderError: it was refused, or there was no answer.
    """
    key = idempotency_key or str(uuid.uuid4())
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise ValueError("an idempotency key is 1 to 255 visible ASCII characters")
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    body = to_json(order).encode()
    loop = asyncio.get_running_loop()
    deadline, wait_s = loop.time() + place_for_s, 0.25
    base: str | None = None
    may_be_placed = False
    is_sent = False

    def sending() -> None:
        nonlocal is_sent
        is_sent = True

    while True:
        is_sent = False
        problem: wire.Problem | None = None
        cause: Exception | None = None
        try:
            async with asyncio.timeout(answer_s):
                if base is None or not may_be_placed:
                    base = await client.address()
                answer = await client._ask(base, "POST", "/api/orders/execute", headers, body, sending)
        except Exception as error:  # of the network, or of what gives address and token
            may_be_placed |= is_sent
            cause, code, message = error, "unreachable", str(error) or type(error).__name__
        else:
            told = _body(answer)
            if answer.status < 300 and "orderId" in told:
                return str(told["orderId"])
            problem = cast(wire.Problem, {"status": answer.status, **told})
            code, message = told.get("code", f"status_{answer.status}"), told.get("detail", answer.reason)
            if wrong := told.get("errors"):
                message += ": " + "; ".join(f"{one.get('field')} {one.get('message')}" for one in wrong)
            if answer.status < 500 and answer.status != 429:
                raise OrderError(code, message, idempotency_key=key, problem=problem)
            may_be_placed |= answer.status != 503 and answer.status != 429  # of what stands between, too
            after = answer.headers.get("Retry-After", "")
            wait_s = max(wait_s, float(after) if after.isdigit() else 0)
        if loop.time() + wait_s > deadline:
            code = "no_answer" if may_be_placed else code
            raise OrderError(code, message, idempotency_key=key, problem=problem) from cause
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, 4)


async def watch_order(
    client: Client[Any],
    order_id: str,
    *,
    on_progress: Progress | None = None,
    on_gap: Missed | None = None,
) -> wire.OrderUpdate:
    """Follows an order to its end, through lost connections. To be cancelled stops the watching, not the order.

    Args:
        client: whose connection is used.
        order_id: which order.
        on_progress: is given each update, in order and once; the last one, too.
        on_gap: is told that updates which should have come are gone; how many, where that is known.

    Returns:
        Its last update, `confirmed`.

    Raises:
        OrderError: it failed, or could not be followed.
    """
    channel = f"order:{order_id.lower()}"
    shared: Subscription[OrderEntry] | None = client.subscriptions.get(channel)
    try:
        with nullcontext(shared) if shared else client.order(order_id) as sub:
            async for update in sub:
                if update["type"] == "gap":
                    if on_gap:
                        call(on_gap, update.get("missed"))
                    continue
                if on_progress:
                    call(on_progress, update)
                if update["type"] in ("confirmed", "failed"):
                    return _end(order_id, update)
    except SubscriptionError as error:
        raise OrderError("not_watched", str(error), order_id=order_id) from error
    except ConnectionFailed as error:
        raise OrderError("not_watched", str(error), order_id=order_id) from error
    if client.status.state != "closed":
        # It ended before, and what is kept of it does not say how.
        try:
            async with asyncio.timeout(10):
                answer = await client._ask(await client.address(), "GET", f"/api/orders/{order_id}", {})
        except Exception as error:
            raise OrderError("not_watched", str(error), order_id=order_id) from error
        last = _body(answer).get("lastUpdate", {})
        if last.get("type") in ("confirmed", "failed"):
            return _end(order_id, last)
    raise OrderError("not_watched", "the subscription was closed", order_id=order_id)


def _end(order_id: str, last: Any) -> wire.OrderUpdate:
    if last["type"] == "failed":
        error = last["error"]
        raise OrderError(error["code"], error["message"], order_id=order_id, failed=last)
    return cast(wire.OrderUpdate, last)


async def place_order(
    client: Client[Any],
    order: Mapping[str, Any],
    *,
    on_placed: Callable[[str], object] | None = None,
    on_progress: Progress | None = None,
    on_gap: Missed | None = None,
    idempotency_key: str | None = None,
    place_for_s: float = 30,
    answer_s: float = 10,
) -> wire.OrderUpdate:
    """Places an order, once, and follows it to its end: `submit_order` and `watch_order`.

    `on_placed` is given its id once it is in the queue.

    Returns:
        Its last update, `confirmed`.

    Raises:
        OrderError: it was refused, failed, or could not be followed.
    """
    order_id = await submit_order(
        client, order, idempotency_key=idempotency_key, place_for_s=place_for_s, answer_s=answer_s
    )
    if on_placed:
        call(on_placed, order_id)
    return await watch_order(client, order_id, on_progress=on_progress, on_gap=on_gap)
