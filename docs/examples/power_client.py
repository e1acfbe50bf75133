#!/usr/bin/env python3
"""Places a power trade and follows it to its end.

    python3 power_client.py [--url URL] SIDE HUB MW START END LIMIT
    python3 power_client.py buy "WESTERN HUB" 50 2026-12-01T15:00:00-05:00 2026-12-01T16:00:00-05:00 41.25

Prints each update as one line of JSON. Exits with 0 if the order was confirmed, else with 1. Orders must
conform to power/order.schema.json; they are placed and followed as in order_client.py.
"""

import argparse
import asyncio
import os
import sys

from order_client import run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default=os.environ.get("ZONEWIRE_URL", "http://127.0.0.1:8080"))
    parser.add_argument("side", metavar="SIDE", help="buy or sell")
    parser.add_argument("hub", metavar="HUB")
    parser.add_argument("quantity", metavar="MW", type=float)
    parser.add_argument("start", metavar="START", help="of the delivery period, as RFC 3339")
    parser.add_argument("end", metavar="END")
    parser.add_argument("limit", metavar="LIMIT", type=float, help="the worst price, in $/MWh")
    args = parser.parse_args()
    order = {
        "side": args.side,
        "hub": args.hub,
        "quantity": args.quantity,
        "period": {"start": args.start, "end": args.end},
        "limit": args.limit,
    }
    return asyncio.run(run(args.url, order=order))


if __name__ == "__main__":
    sys.exit(main())
