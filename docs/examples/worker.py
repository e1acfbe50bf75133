#!/usr/bin/env python3
"""Executes orders for a gateway with `orders.executor = "external"`.

    python3 worker.py [--url URL] [--lease-ms N] [--work-ms N]

Takes one order at a time; run several for more. The venue is simulated: replace `quote` and `send`.
After SIGTERM or SIGINT it finishes the order at hand and exits with 0; it exits with 1 if the gateway
refuses it or stays unreachable. If the gateway requires a token, set ZONEWIRE_TOKEN; it needs the right
`work`.
"""

import argparse
import hashlib
import http.client
import json
import os
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

TRIES_MAX = 10  # attempts of a request that the gateway cannot answer now
CLAIM_WAIT_MS = 1_000  # how long a claim may wait for work, which also delays SIGTERM

NAME = f"worker.py-{os.getpid()}"
stopping = threading.Event()


def say(text):
    print(text, flush=True)


class Refused(Exception):
    """The gateway refused the request; `code` says why."""

    def __init__(self, status, problem):
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.code = problem.get("code")


class OrderFault(Exception):
    """The venue refused the order."""

    def __init__(self, code, message, retry):
        super().__init__(message)
        self.code, self.retry = code, retry


class Unavailable(Exception):
    """The gateway cannot answer now."""

    def __init__(self, message, retry_after=0.0):
        super().__init__(message)
        self.retry_after = retry_after


class Gateway:
    def __init__(self, url):
        self.url = url

    def post(self, path, body):
        """Sends a request, and repeats it with growing delays while the gateway is busy or unreachable."""
        for attempt in range(1, TRIES_MAX + 1):
            try:
                return self.post_once(path, body)
            except Unavailable as error:
                if attempt == TRIES_MAX:
                    raise
                backoff = min(0.25 * 2 ** (attempt - 1), 5.0) + 0.25 * random.random()
                wait = max(error.retry_after, backoff)
                say(f"{path}: {error}; trying again in {wait:.1f} s")
                time.sleep(wait)

    def post_once(self, path, body):
        headers = {"content-type": "application/json"}
        if token := os.environ.get("ZONEWIRE_TOKEN"):
            headers["authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=CLAIM_WAIT_MS / 1000 + 10) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                after = error.headers.get("retry-after", "")
                raise Unavailable(error, float(after) if after.isdigit() else 0.0) from None
            try:
                problem = json.load(error)
            except ValueError:
                problem = {"detail": error.reason}
            raise Refused(error.code, problem) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unavailable(error) from None  # no answer, or an incomplete one


class Job:
    """A claimed job; its lease is extended until `release`."""

    def __init__(self, gateway, claim, claimed_at):
        self.gateway, self.claim = gateway, claim
        self.path = f"/api/jobs/{claim['jobId']}"
        self.lease = claim["leaseMs"] / 1000
        self.held_until = claimed_at + self.lease  # by our clock, from before the request
        self.refusal = None  # why to stop
        self.wake = threading.Event()
        self.keeper = threading.Thread(target=self.keep, daemon=True)
        self.keeper.start()

    def keep(self):
        """Extends the lease in the background, each time a third of it has passed."""
        while not self.wake.wait(self.lease / 3):
            asked_at = time.monotonic()
            try:
                wish = {"token": self.claim["token"], "leaseMs": self.claim["leaseMs"]}
                self.gateway.post_once(f"{self.path}/extend", wish)
                self.held_until = asked_at + self.lease
            except Refused as refused:
                self.refusal = refused
            except Unavailable as error:
                say(f"cannot extend the lease: {error}")
            if self.refusal is None and time.monotonic() >= self.held_until:
                self.refusal = Refused(409, {"code": "lease_lost", "detail": "the lease has run out"})
            if self.refusal is not None:
                self.wake.set()

    def release(self):
        self.wake.set()
        self.keeper.join()

    def check(self):
        """Raises if the job is no longer ours."""
        if self.refusal is not None:
            raise self.refusal

    def work(self, seconds):
        """Simulates the work of a stage; a refusal ends it early."""
        self.wake.wait(seconds)
        self.check()

    def post(self, what, **body):
        return self.gateway.post(f"{self.path}/{what}", {"token": self.claim["token"], "executor": NAME, **body})

    def progress(self, stage, progress, message, **more):
        self.check()
        self.post("progress", type=stage, progress=progress, message=message, **more)


def quote(order):
    """Where to trade. Simulated."""
    if order["amount"] > 1_000_000:
        raise OrderFault("too_large", "no venue takes so much", retry=False)
    return random.choice(["raydium", "meteora"])


def send(job):
    """Sends the transaction. The job's id identifies it at the venue, so that it is executed once even
    if an earlier run sent it and died before reporting it."""
    return "0x" + hashlib.sha256(job.claim["jobId"].encode()).hexdigest()


def execute(job, work):
    order, previous = job.claim["order"], job.claim["previous"]
    if previous and previous["status"] == "submitted":
        dex = "raydium"  # an earlier run sent the transaction; only its outcome is open
    else:
        job.progress("routing", 10, "asking venues")
        job.work(work)
        dex = quote(order)
        job.progress("building", 50, f"making the transaction for {dex}", chosenDex=dex)
        job.work(work)
    # Reported before it is sent: from here on the order cannot be cancelled. If this is refused, nothing
    # has been sent.
    job.progress("submitted", 80, "sending the transaction", dex=dex)
    tx = send(job)
    job.work(work)
    job.post("complete", txHash=tx, dex=dex, message="executed")


def end(job, fault):
    """Reports that the run failed; returns the outcome: another attempt, or failed for good."""
    error = {"code": fault.code, "message": str(fault)}
    return job.post("fail", error=error, retry=fault.retry)["outcome"]


CANCELLED = OrderFault("cancelled", "cancelled while it was executed", retry=False)


def run(gateway, claim, claimed_at, work):
    name = f"{claim['orderId']} run {claim['run']}"
    say(f"{name}: claimed")
    job = Job(gateway, claim, claimed_at)
    try:
        try:
            execute(job, work)
            say(f"{name}: done")
        except OrderFault as fault:
            say(f"{name}: {fault}: {end(job, fault)}")
    except Refused as refused:
        try:
            if refused.code != "cancelled":
                raise
            say(f"{name}: {CANCELLED}: {end(job, CANCELLED)}")
        except Refused as refused:
            # Usually `lease_lost`: somebody else has the job now, or soon will.
            say(f"{name}: dropped: {refused}")
    finally:
        job.release()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default=os.environ.get("ZONEWIRE_URL", "http://127.0.0.1:8080"))
    parser.add_argument("--lease-ms", type=int, default=30_000)
    parser.add_argument("--work-ms", type=int, default=500, help="how long each stage takes")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    gateway = Gateway(args.url.rstrip("/"))
    wish = {
        "worker": NAME,
        "limit": 1,
        "leaseMs": args.lease_ms,
        "waitMs": CLAIM_WAIT_MS,
    }
    while not stopping.is_set():
        asked_at = time.monotonic()
        for claim in gateway.post("/api/jobs/claim", wish)["jobs"]:
            run(gateway, claim, asked_at, args.work_ms / 1000)
    say("stopped")


if __name__ == "__main__":
    try:
        main()
    except (Refused, Unavailable) as fault:
        sys.exit(f"error: {fault}")
