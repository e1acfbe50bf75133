#!/usr/bin/env python3
"""Places an order and follows it to its end, through lost connections.

    python3 order_client.py [--url URL] TOKEN_IN TOKEN_OUT AMOUNT
    python3 order_client.py [--url URL] ORDER_ID

Prints each update as one line of JSON. Exits with 0 if the order was confirmed, else with 1. If the gateway
requires a token, set ZONEWIRE_TOKEN.
"""

import argparse
import asyncio
import json
import os
import sys

from zonewire import OrderError, connect, submit_order, watch_order


def say(text):
    print(text, file=sys.stderr, flush=True)


async def run(url, order_id=None, order=None):
    """Follows an existing order, or places one and follows it; returns the exit code."""
    async with connect(url, token=os.environ.get("ZONEWIRE_TOKEN")) as client:  # logs lost connections and retries to stderr
        try:
            if order is not None:
                order_id = await submit_order(client, order)  # placed once, however often it is sent
                say(f"order {order_id}")
            await watch_order(
                client,
                order_id,
                on_progress=lambda update: print(json.dumps(update), flush=True),
                on_gap=lambda missed: say(f"{missed or 'an unknown number of'} updates are missing here"),
            )
        except OrderError as error:
            say(f"error: {error}")
            return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default=os.environ.get("ZONEWIRE_URL", "http://127.0.0.1:8080"))
    parser.add_argument("order", nargs="+", metavar="TOKEN_IN TOKEN_OUT AMOUNT | ORDER_ID")
    args = parser.parse_args()
    if len(args.order) == 3:
        token_in, token_out, amount = args.order
        order = {"tokenIn": token_in, "tokenOut": token_out, "amount": float(amount), "slippage": 1}  # per cent
        return asyncio.run(run(args.url, order=order))
    if len(args.order) == 1:
        return asyncio.run(run(args.url, order_id=args.order[0]))
    parser.error("expected TOKEN_IN TOKEN_OUT AMOUNT, or ORDER_ID")


if __name__ == "__main__":
    sys.exit(main())
