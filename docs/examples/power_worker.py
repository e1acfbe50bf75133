#!/usr/bin/env python3
"""Executes power trades for a gateway with `orders.executor = "external"`.

    python3 power_worker.py [--url URL] [--lease-ms N] [--work-ms N]

The market is simulated: replace `best_price` and `send`. Claims, leases and refusals are handled as in
worker.py.
"""

import hashlib
import random
import sys

import worker
from worker import OrderFault, Refused, Unavailable


def best_price(order):
    """The best opposite price for a delivery at the hub, in $/MWh. Simulated: near the limit."""
    if order["quantity"] > 1_000:
        raise OrderFault("too_large", f"nobody trades {order['quantity']} MW at {order['hub']}", retry=False)
    return round(order["limit"] + random.uniform(-0.5, 0.5), 2)


def within(order, price):
    return price <= order["limit"] if order["side"] == "buy" else price >= order["limit"]


def send(job):
    """Sends the order to the market. The job's id identifies it there, so that it is traded once even if an
    earlier run sent it and died before reporting it."""
    return hashlib.sha256(job.claim["jobId"].encode()).hexdigest()[:16]


def execute(job, work):
    order, previous = job.claim["order"], job.claim["previous"]
    if previous and previous["status"] == "submitted":
        price = order["limit"]  # an earlier run sent it; only its outcome has to be found out
    else:
        job.progress("routing", 10, f"looking for {order['quantity']} MW at {order['hub']}")
        price = best_price(order)
        while not within(order, price):
            job.progress("routing", 20, f"waiting for {order['limit']}", best=price)
            job.work(work)
            price = best_price(order)
        job.progress("building", 50, f"there is a price of {price}", price=price)
        job.work(work)
    # Reported before it is sent: from here on the order cannot be cancelled.
    job.progress("submitted", 80, "sent to the market", price=price)
    trade = send(job)
    job.work(work)
    verb = "bought" if order["side"] == "buy" else "sold"
    message = f"{verb} {order['quantity']} MW at {order['hub']} for {price} $/MWh"
    job.post("complete", tradeId=trade, price=price, quantity=order["quantity"], message=message)


if __name__ == "__main__":
    worker.NAME = worker.NAME.replace("worker.py", "power_worker.py")
    worker.execute = execute
    try:
        worker.main()
    except (Refused, Unavailable) as fault:
        sys.exit(f"error: {fault}")
