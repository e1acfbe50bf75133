#!/usr/bin/env python3
"""Places an order and follows it to its end, through lost connections.

    python3 order_client.py [--url URL] TOKEN_IN TOKEN_OUT AMOUNT
    python3 order_client.py [--url URL] ORDER_ID

Prints each update as one line of JSON. Ends with 0 when the order was confirmed, else with 1.
"""

import argparse
import asyncio
import collections
import http.client
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
import uuid

import websockets

PLACE_FOR = 30.0  # seconds for which an order is sent again
ATTEMPTS_MAX = 5  # connections that fail in a row
STABLE = 5.0  # seconds after which a connection was no failure
IDS_MAX = 1_000  # ids remembered; a log keeps 50 updates, so what comes again is among the newest
STAGES = ("routing", "building", "submitted", "confirmed", "failed")


def say(text):
    print(text, file=sys.stderr, flush=True)


def place(url, order):
    """Sends the order until there is an answer; the key keeps it from being placed twice."""
    headers = {"content-type": "application/json", "idempotency-key": str(uuid.uuid4())}
    request = urllib.request.Request(f"{url}/api/orders/execute", json.dumps(order).encode(), headers)
    deadline, wait = time.monotonic() + PLACE_FOR, 0.25
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)["orderId"]
        except urllib.error.HTTPError as error:
            problem = f"{error.code}: {error.read().decode(errors='replace')}"
            if error.code != 503:  # only that is worth another try; it says when
                raise SystemExit(f"error: {problem}") from None
            after = error.headers.get("retry-after", "")
            wait = max(wait, float(after) if after.isdigit() else 0.0)
        except (OSError, ValueError, http.client.HTTPException) as error:  # no answer: the order may be there or not
            problem = str(error)
        if time.monotonic() + wait > deadline:
            raise SystemExit(f"error: not placed: {problem}")
        say(f"{problem}; trying again in {wait} s")
        time.sleep(wait)
        wait = min(2 * wait, 4.0)


def may_reconnect(code):
    """Whether to come back after a close code; see "Close codes" in the protocol."""
    return code not in (1000, 1002, 1003, 1007, 1009) and not 4500 <= code <= 4999


class Follower:
    """What is known of an order, over all connections."""

    def __init__(self, url, order_id):
        self.address = f"{url.replace('http', 'ws', 1)}/api/orders/status/{order_id}"
        self.epoch, self.offset = None, 0
        self.ids = collections.deque(maxlen=IDS_MAX)
        self.may_come_again = False
        self.last = None
        self.retry_after = 0.0

    def is_ended(self):
        return self.last is not None and self.last["type"] in ("confirmed", "failed")

    def take(self, message):
        kind = message["type"]
        if kind in ("subscribed", "resync"):
            self.epoch, self.offset = message["epoch"], message["offset"]
            self.may_come_again = not message["recovered"]
            if self.may_come_again:
                say(f"{message.get('gap', 'an unknown number of')} updates are missing here")
        elif kind == "error":  # such as an address that is not right; what comes next is in the close code
            say(message["message"])
        elif kind == "closing":
            self.retry_after = message.get("retry_after_ms", 0) / 1000
        elif kind == "skipped":  # only a newer gateway knows what it says; it counts all the same
            self.offset = message["offset"]
        elif kind in STAGES:
            self.offset = message["offset"]
            if self.may_come_again and message["id"] in self.ids:
                return
            self.ids.append(message["id"])
            self.last = message
            print(json.dumps(message), flush=True)

    async def connection(self):
        """One connection, to its end; gives the close code."""
        since = f"?since={self.epoch}:{self.offset}" if self.epoch else ""
        try:
            # The library pings every 20 s and gives up when no pong comes.
            async with websockets.connect(self.address + since) as socket:
                async for text in socket:
                    self.take(json.loads(text))
                    if self.is_ended():
                        return 1000
                return socket.close_code
        except websockets.InvalidStatus as error:
            status = error.response.status_code
            say(f"the gateway answered {status}")
            # A refusal that time does not change counts as a final code.
            return 4500 if status < 500 and status not in (408, 425, 429) else 1006
        except websockets.ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else 1006
        except (OSError, websockets.WebSocketException) as error:
            say(str(error))
            return 1006

    async def follow(self):
        """To the end of the order, or until there is no way on. Says whether it was confirmed."""
        attempt = 0
        while True:
            began = time.monotonic()
            code = await self.connection()
            if self.is_ended():
                return self.last["type"] == "confirmed"
            attempt = 1 if time.monotonic() - began >= STABLE else attempt + 1
            if attempt > ATTEMPTS_MAX or not may_reconnect(code):
                raise SystemExit(f"error: closed with {code}; giving up")
            # 1, 2, 4, 8, 16 s plus up to 1 s, so that not all come back at once; later if asked to.
            wait = max(2 ** (attempt - 1) + random.random(), self.retry_after)
            self.retry_after = 0.0
            say(f"closed with {code}; trying again in {wait:.1f} s")
            await asyncio.sleep(wait)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default=os.environ.get("ZONEWIRE_URL", "http://127.0.0.1:8080"))
    parser.add_argument("order", nargs="+", metavar="TOKEN_IN TOKEN_OUT AMOUNT | ORDER_ID")
    args = parser.parse_args()
    url = args.url.rstrip("/")
    if len(args.order) == 3:
        token_in, token_out, amount = args.order
        order = {"tokenIn": token_in, "tokenOut": token_out, "amount": float(amount), "slippage": 1}  # per cent
        order_id = place(url, order)
        say(f"order {order_id}")
    elif len(args.order) == 1:
        order_id = args.order[0]
    else:
        parser.error("expected TOKEN_IN TOKEN_OUT AMOUNT, or ORDER_ID")
    return 0 if asyncio.run(Follower(url, order_id).follow()) else 1


if __name__ == "__main__":
    sys.exit(main())
