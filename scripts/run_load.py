#!/usr/bin/env python3
"""Searches, and images handed in, by schedule; what they take is printed every ten seconds.

A request is due at its time whatever became of those before it, and what it takes counts from then. Needs a server
without an API key, on this machine. `scripts/cluster --load N` runs it.
"""

import argparse
import signal
import sys
import threading
import time

from medsearch_py.load import IN_FLIGHT_MAX, Done, Ingests, OpenLoop, Searches, figures_of

EVERY_S = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", required=True, help="where to ask; several: in turn")
    parser.add_argument("--searches-per-s", type=float, required=True)
    parser.add_argument("--ingests-per-s", type=float, default=0.0, help="default: none")
    parser.add_argument("--seconds", type=float, help="default: until it is stopped")
    args = parser.parse_args()
    stopped = threading.Event()
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, lambda *_: stopped.set())
    searches = Searches(args.url[0])
    loads = {"searches": OpenLoop(searches, args.url, args.searches_per_s)}
    if args.ingests_per_s > 0:
        loads["ingests"] = OpenLoop(Ingests(searches.classes), args.url, args.ingests_per_s)
    print(f"load: {args.searches_per_s:g} searches a second, at most {IN_FLIGHT_MAX} at a time", flush=True)
    began = time.monotonic()
    for load in loads.values():
        load.start()
    while not stopped.wait(EVERY_S if args.seconds is None else min(EVERY_S, args.seconds)):
        seconds = time.monotonic() - began
        for name, load in loads.items():
            print(f"{seconds:6.0f} s  {name:8} {line(load.taken())}", flush=True)
        if args.seconds is not None and seconds >= args.seconds:
            break
    return 0


def line(done: list[Done]) -> str:
    """The figures of some requests in a line."""
    return ", ".join(f"{name} {value}" for name, value in figures_of(done).items())


if __name__ == "__main__":
    sys.exit(main())
