"""Shared state of `multiprocessing.managers`: a dict, written by one call a value from several threads.

It has no set and no counter: an increment of a shared `Value` is a read and a write, which two programs can do at once.
The client answers one line of JSON for each line.
"""
import json
import signal
import sys
import threading
import time
from multiprocessing.managers import SyncManager

THREADS = 4


def url(n):
    return f"https://www.example.com/a/section/of/pages/with/a/long/path/{n}".ljust(80, "x")


def write(titles, first, last):
    for i in range(first, last):
        titles[url(i)] = url(i)


if __name__ == "__main__":
    manager = SyncManager()
    manager.start()
    # In order, or the server would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for line in sys.stdin:
        singles = json.loads(line)["singles"]
        titles = manager.dict()
        step = -(-singles // THREADS)
        threads = [
            threading.Thread(target=write, args=(titles, at, min(at + step, singles))) for at in range(0, singles, step)
        ]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - start
        if len(titles) != singles or titles[url(singles - 1)] != url(singles - 1):
            print(json.dumps({"error": "a value was lost"}), flush=True)
        else:
            print(json.dumps({"set": round(singles / seconds)}), flush=True)
