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
    """An order was not placed, failed, or could not be watched to its end."""

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
        """The gateway's code (`invalid_order`, `queue_full`, …) or the order's (`cancelled`, `no_liquidity`, …).

        Or `unreachable`: there was no connection, and nothing was placed. `no_answer`: it is unknown whether the
        order was placed, so place it again with the same key. `not_watched`: it was placed, and continues.
        """
        self.message = message
        """A text for people, which names each wrong field."""
        self.order_id = order_id
        """Absent if it is not known to be placed."""
        self.idempotency_key = idempotency_key
        """The key with which it was sent."""
        self.problem = problem
        """The gateway's refusal, with each wrong field in `errors`."""
        self.failed = failed
        """The order's last update, if it failed."""


def to_json(value: Any) -> str:
    """Like `json.dumps`, but a Decimal keeps its digits.

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
    """The body as JSON; an intermediary may answer with something else."""
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
    """Places an order once, however often it has to be sent.

    It is sent with a key until it is answered. If an answer may have been lost, it is sent again to the same
    gateway, which knows the key even while Redis is away. A Decimal keeps its digits. A cancellation has the same
    effect as a lost answer: the order may have been placed.

    Args:
        client: whose gateway and token are used.
        order: an order that fits the gateway's `orders.schema`.
        idempotency_key: makes repetitions harmless, for 24 hours. Default: a new one. Store one in order to
            continue after a crash.
        place_for_s: how long to repeat it if there is no answer, or one that says "later".
        answer_s: how long to wait for one answer.

    Returns:
        The id of the order, which is then in the queue.

    Raises:
        OrderError: the order was refused, or not answered.
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
        except Exception as error:  # from the network, or from the address and token functions
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
            may_be_placed |= answer.status != 503 and answer.status != 429  # answers of intermediaries count too
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
    """Follows an order to its end, through lost connections. Cancelling this does not cancel the order.

    Args:
        client: whose connection is used.
        order_id: the order's id.
        on_progress: is called with each update once, in order, the last one included.
        on_gap: is called when updates were lost, with their number if known.

    Returns:
        The last update, `confirmed`.

    Raises:
        OrderError: the order failed, or could not be followed.
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
        # It ended earlier, and the stored updates do not say how.
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
    """Places an order once, and follows it to its end: `submit_order` and `watch_order`.

    `on_placed` is called with its id once it is in the queue.

    Returns:
        The last update, `confirmed`.

    Raises:
        OrderError: the order was refused, failed, or could not be followed.
    """
    order_id = await submit_order(
        client, order, idempotency_key=idempotency_key, place_for_s=place_for_s, answer_s=answer_s
    )
    if on_placed:
        call(on_placed, order_id)
    return await watch_order(client, order_id, on_progress=on_progress, on_gap=on_gap)
