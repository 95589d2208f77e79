"""Queues of `multiprocessing.managers`: server, master and workers of one system.

    queues.py server PORT | queues.py worker PORT | queues.py master PORT

The server shares two `queue.Queue`. With `BENCH_CALLS` "one" they are what the documentation shows: `put` and `get` of one
item a call, by several threads. With "many" they have calls for many items, which this bench adds: a bare channel of pickles.
The master answers one line of JSON for each line: a pass of `crawl-dispatch`. Nothing is leased: a task dies with its worker.
"""
import base64
import json
import os
import queue
import socket
import sys
import threading
import time
from multiprocessing import connection
from multiprocessing.managers import BaseManager

MOST = 256
MANY = os.environ["BENCH_CALLS"] == "many"
# One thread computes while others wait for the server.
PUTTERS = READERS = 4
WORKERS = 1 if os.environ["BENCH_CONCURRENCY"] == "1" else 2 if MANY else 4


class Items(queue.Queue):
    def put_many(self, items):
        with self.mutex:
            self.queue.extend(items)
            self.unfinished_tasks += len(items)
            self.not_empty.notify_all()

    def get_many(self, most):
        """Waits up to a second for the first."""
        try:
            items = [self.get(timeout=1)]
        except queue.Empty:
            return []
        with self.mutex:
            while len(items) < most and self.queue:
                items.append(self.queue.popleft())
        return items


TASKS, RESULTS = (Items(), Items()) if MANY else (queue.Queue(), queue.Queue())


class Queues(BaseManager):
    pass


CALLS = ["put", "put_many", "get_many", "qsize"] if MANY else None
Queues.register("tasks", callable=lambda: TASKS, exposed=CALLS)
Queues.register("results", callable=lambda: RESULTS, exposed=CALLS)


def connect_without_delay(address, connect=connection.SocketClient):
    """A message of more than 16 KiB leaves in two writes: with Nagle's algorithm each would wait 40 ms for an answer."""
    made = connect(address)
    with socket.socket(fileno=os.dup(made.fileno())) as copy:
        copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


connection.SocketClient = connect_without_delay


def connected(port):
    manager = Queues(address=("127.0.0.1", port), authkey=os.environ["BENCH_KEY"].encode())
    if role != "server":
        manager.connect()
    return manager


def work(manager):
    tasks, results = manager.tasks(), manager.results()
    # Each thread has a connection for each queue, made by its first call: a task is taken only when both are there.
    results.qsize()
    while not MANY:
        item = tasks.get()
        results.put({"url": item["url"], "ok": True})
    while True:
        items = tasks.get_many(MOST)
        if items:
            results.put_many([{"url": item["url"], "ok": True} for item in items])


READ = queue.SimpleQueue()


def read(manager):
    results = manager.results()
    while True:
        READ.put(results.get())


def arrived():
    """Waits up to a second for the first."""
    items = []
    try:
        items.append(READ.get(timeout=1))
        while len(items) < 1024:
            items.append(READ.get_nowait())
    except queue.Empty:
        pass
    return items


def run_pass(manager, number, count, batch, payload_bytes):
    urls = [f"https://images.example.org/{number:019d}/{i:09d}.png" for i in range(count)]
    assert all(len(url) == 60 for url in urls)
    around = len(json.dumps({"url": urls[0], "body": ""}, separators=(",", ":")))
    # Text that no server can make smaller.
    filling = base64.urlsafe_b64encode(os.urandom(payload_bytes))[: payload_bytes - around - 9].decode() if payload_bytes else ""

    def task(url):
        """Each has a body of its own: pickle would write one that they share once."""
        return {"url": url, "body": filling + url[47:56]} if filling else {"url": url}

    index = {url: i for i, url in enumerate(urls)}
    seen = bytearray(count)
    faults = []
    many = MANY and batch > 1
    step = count if many else -(-count // PUTTERS)

    def put(first, last):
        try:
            tasks = manager.tasks()
            if many:
                for at in range(first, last, batch):
                    tasks.put_many([task(url) for url in urls[at : at + batch]])
            else:
                for url in urls[first:last]:
                    tasks.put(task(url))
        except Exception as error:  # the pass fails, with this as its reason
            faults.append(repr(error))

    results = manager.results()
    putters = [threading.Thread(target=put, args=(at, min(at + step, count)), daemon=True) for at in range(0, count, step)]
    start = time.monotonic()
    for putter in putters:
        putter.start()
    left, empty = count, 0
    while left and not faults:
        items = results.get_many(1024) if MANY else arrived()
        empty = 0 if items else empty + 1
        if empty >= 20:
            raise RuntimeError(f"no result for 20 s, {left} are missing")
        for item in items:
            i = index.get(item["url"])
            if i is None or item["ok"] is not True:
                raise RuntimeError(f"a result for {item['url']}, which was not put")
            if seen[i]:
                raise RuntimeError(f"two results for {item['url']}")
            seen[i] = 1
            left -= 1
    seconds = time.monotonic() - start
    for putter in putters:
        putter.join(5)
    time.sleep(0.05)
    more = manager.tasks().qsize() + results.qsize()
    if faults or more:
        raise RuntimeError(faults[0] if faults else f"{more} tasks after the pass")
    return {"seconds": seconds}


role, port = sys.argv[1], int(sys.argv[2])
manager = connected(port)
if role == "server":
    server = manager.get_server()
    # The connections that it accepts inherit this.
    server.listener._listener._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.serve_forever()
elif role == "worker":
    for _ in range(WORKERS):
        threading.Thread(target=work, args=(manager,), daemon=True).start()
    threading.Event().wait()
else:
    for _ in range(0 if MANY else READERS):
        threading.Thread(target=read, args=(manager,), daemon=True).start()
    for number, line in enumerate(sys.stdin):
        ask = json.loads(line)
        try:
            answer = run_pass(manager, number, ask["tasks"], ask["batch"], ask.get("payloadBytes"))
        except Exception as error:  # the answer carries it
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
