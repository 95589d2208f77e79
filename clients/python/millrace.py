"""A client of the Millrace queue manager: one file, nothing but the standard library, Python 3.9 or later.

    import millrace

    with millrace.connect("127.0.0.1", 8001, key="the shared key") as client:
        images = client.queue("images", capacity=1000)        # made if it is not there
        images.put("ImageUrl_0")
        images.put_all(["ImageUrl_1", millrace.Item("ImageUrl_2", priority=10, delay=1.5, id="ImageUrl_2")])

        for task in images.lease(10, wait=5):                 # [] when nothing came within 5 seconds
            task.started()
            try:
                task.commit(f"{task.payload} ---> success")
            except millrace.LeaseLost:
                pass                                          # somebody else has it: what was done does not count

        print(images.stats()["done"])

Values are JSON (None, bool, int, float, str, list, dict) or, whole, bytes. Times are seconds, `wait` is how long an
answer may take: None for as long as the connection lives, 0 for not at all. A client may be used by many threads. Its
own thread sends heartbeats, which keep the connection and renew the leases that are held.

It is written from docs/protocol.md, and the sections named here are those of that page. It does not resume a session:
a lost connection ends the client, and its leases go back to their queues after their term.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import re
import secrets
import socket
import threading
import time
import unicodedata
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, NoReturn, Optional, Sequence, Tuple, Type, Union

UINT_MAX = 2**53 - 1
FRAME_BYTES_MAX = 20_971_520
FRAME_BYTES_MAX_LOGIN = 16_512
MESSAGES_PER_FRAME_MAX = 16_384
ELEMENTS_MAX = 32
DEPTH_MAX = 32
ITERATIONS_MIN, ITERATIONS_MAX = 4_096, 1_000_000
HANDSHAKE_SECONDS = 5.0
DEAD_SECONDS = 20.0
PAYLOAD_BYTES_MAX = 16_777_216
RESULT_BYTES_MAX = 1_048_576
BATCH_ITEMS_MAX = 4_096
BATCH_BYTES = 4_194_304
HELD_MAX = 65_536
WAIT_MS_MAX = 86_400_000
DELAY_MS_MAX = 31_622_400_000
ACKNOWLEDGE_EVERY = 256

# The numbers of a policy in their order, with their defaults (section 8).
POLICY: Dict[str, int] = {
    "capacity": 1_000_000, "tasks_max": 0, "lease_ms": 30_000, "max_attempts": 5, "backoff_base_ms": 1_000,
    "backoff_factor_percent": 200, "backoff_cap_ms": 60_000, "backoff_jitter_percent": 50,
    "payload_bytes_max": 1_048_576, "outcomes_kept": 1_000_000, "outcomes_kept_ms": 86_400_000,
    "dedupe_kept": 1_000_000, "dedupe_kept_ms": 86_400_000, "capacity_bytes": 0, "overflow": 0,
    "lane_concurrency": 0, "lane_rate_per_minute": 0, "lane_burst": 0, "lane_gap_ms": 0, "durability": 0,
}  # fmt: skip

# The counts of a queue in their order (section 13).
COUNTS = (
    "name durability closed capacity ready delayed leased done dead cancelled acknowledged puts duplicates refused "
    "oldestReadyMs outcomesFirst outcomesNext workers paused nextDueMs nextLeaseEndMs waitingBytes outcomeBytes "
    "deadLetterBytes deadLetters waitingPuts waitingTakers readers repeats puts1s puts10s puts60s leases1s leases10s "
    "leases60s commits1s commits10s commits60s failures1s failures10s failures60s lanes purged dropped redriven "
    "capacityBytes"
).split()

PUT_STATUSES = ("accepted", "duplicate", "full", "spent")
STANDINGS = ("gone", "ready", "delayed", "leased", "success", "failure", "dead", "cancelled")
OUTCOMES = ("success", "failure", "dead", "cancelled")
REASONS = {"failed": 0, "killed": 1, "defect": 2, "timeout": 8, "undecodable": 9}


# Errors (section 15).


class MillraceError(Exception):
    """What the manager refused, or what became of the connection: `code` and `name` are those of section 15.

    `definite` says that nothing was done; after an indefinite error it may or may not have been done.
    """

    def __init__(self, text: str = "", code: int = 0, definite: bool = True, subject: str = "", value: int = 0,
                 limit: int = 0) -> None:  # fmt: skip
        self.code, self.definite, self.subject, self.value, self.limit = code, definite, subject, value, limit
        self.name = _CODES[code][0] if code in _CODES else type(self).__name__
        super().__init__(text or f"{self.name}: {subject!r}, value {value}, limit {limit}")


# fmt: off
class QueueNotFound(MillraceError): """There is no such queue."""
class SchemaMismatch(MillraceError): """The queue has other Schemas."""
class PayloadTooLarge(MillraceError): """More bytes than the queue allows."""
class Full(MillraceError): """No room before the wait was over."""
class Empty(MillraceError): """No task before the wait was over."""
class Closed(MillraceError): """The queue takes, or hands out, nothing any more."""
class LeaseLost(MillraceError): """The lease is not this session's, or not any more: what was done does not count."""
class AlreadyEnded(MillraceError): """The task has ended."""
class TaskNotFound(MillraceError): """The task is not of this queue, or its outcome is no longer kept."""
class LimitExceeded(MillraceError): """A limit of the manager."""
class Draining(MillraceError): """The manager is about to stop."""
class NotPermitted(MillraceError): """No role of this credential permits it."""
class DefinitionInvalid(MillraceError): """A number of the policy is out of its range."""
class TimedOut(MillraceError): """The wait was over before the task, or the queue, had ended."""
class StoreFull(MillraceError): """The manager's disk is full."""
class ProtocolViolated(MillraceError): """One side broke the rules of the protocol."""
class AuthenticationFailed(MillraceError): """Wrong key, unknown user, or a manager that does not have the key."""
class VersionUnsupported(MillraceError): """The manager speaks other versions of the protocol."""
class ConnectFailed(MillraceError): """No session came to be."""
class ConnectionLost(MillraceError): """The connection is over."""
class Spent(MillraceError): """The queue takes no more tasks, which is final."""
# fmt: on

_CODES: Dict[int, Tuple[str, Type[MillraceError]]] = {
    1: ("queueNotFound", QueueNotFound), 2: ("schemaMismatch", SchemaMismatch),
    3: ("payloadTooLarge", PayloadTooLarge), 4: ("full", Full), 5: ("empty", Empty), 6: ("closed", Closed),
    7: ("leaseLost", LeaseLost), 8: ("alreadyEnded", AlreadyEnded), 9: ("taskNotFound", TaskNotFound),
    11: ("limitExceeded", LimitExceeded), 12: ("draining", Draining), 13: ("notPermitted", NotPermitted),
    14: ("definitionInvalid", DefinitionInvalid), 15: ("unsupported", MillraceError), 16: ("timedOut", TimedOut),
    17: ("storeFull", StoreFull), 32: ("objectNotFound", MillraceError), 33: ("objectKindMismatch", MillraceError),
    34: ("conflict", MillraceError), 35: ("counterOverflow", MillraceError), 36: ("durabilityMixed", MillraceError),
    64: ("protocol", ProtocolViolated), 65: ("authentication", AuthenticationFailed),
    66: ("version", VersionUnsupported), 67: ("handshakeTimeout", ConnectFailed),
    68: ("tooManyConnections", ConnectFailed), 69: ("replaced", ConnectionLost),
}  # fmt: skip


def _refusal(code: int, subject: str = "", value: int = 0, limit: int = 0) -> MillraceError:
    cls = _CODES[code][1] if code in _CODES else MillraceError
    return cls(code=code, subject=subject, value=value, limit=limit)


def _closing(code: int, text: str) -> MillraceError:
    cls = _CODES[code][1] if code in _CODES else ConnectionLost
    return cls(f"the manager closed the connection: {text}", code, definite=65 <= code <= 68)


def _breach(what: str) -> NoReturn:
    raise ProtocolViolated(f"the manager broke the protocol: {what}", 64, definite=False)


# The subset of MessagePack (section 3).


def _pack(value: Any, out: bytearray) -> None:
    if value is None:
        out.append(0xC0)
    elif value is True or value is False:
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):
        if not 0 <= value <= UINT_MAX:
            raise ValueError(f"{value} is not in 0..{UINT_MAX}")
        if value < 0x80:
            out.append(value)
        else:
            _head(value, ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)), out)
    elif isinstance(value, str):
        data = value.encode("utf-8")
        if len(data) < 32:
            out.append(0xA0 | len(data))
        else:
            _head(len(data), ((0xD9, 1), (0xDA, 2), (0xDB, 4)), out)
        out += data
    elif isinstance(value, (bytes, bytearray)):
        _head(len(value), ((0xC4, 1), (0xC5, 2), (0xC6, 4)), out)
        out += value
    elif isinstance(value, (list, tuple)):
        if len(value) < 16:
            out.append(0x90 | len(value))
        else:
            _head(len(value), ((0xDC, 2), (0xDD, 4)), out)
        for element in value:
            _pack(element, out)
    else:
        raise TypeError(f"{type(value).__name__} has no place in a message")


def _head(number: int, widths: Sequence[Tuple[int, int]], out: bytearray) -> None:
    for first, width in widths:
        if number < 1 << 8 * width:
            out.append(first)
            out += number.to_bytes(width, "big")
            return
    raise ValueError(f"{number} is too much for one value")


# First bytes to kind and width of the number that follows.
_HEADS = {
    0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xCC: ("uint", 1), 0xCD: ("uint", 2), 0xCE: ("uint", 4),
    0xCF: ("uint", 8), 0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4), 0xDC: ("array", 2), 0xDD: ("array", 4),
}  # fmt: skip


def _unpack(body: bytes, at: int, depth: int) -> Tuple[Any, int]:
    """The value at `at`, and where the next one begins. No length is believed beyond the bytes that are there."""
    if at >= len(body):
        _breach("a message is cut off")
    first = body[at]
    at += 1
    if first < 0x80:
        return first, at
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    if 0x90 <= first < 0xA0:
        kind, number = "array", first & 0x0F
    elif 0xA0 <= first < 0xC0:
        kind, number = "str", first & 0x1F
    elif first in _HEADS:
        kind, width = _HEADS[first]
        number = int.from_bytes(body[at : at + width], "big")
        at += width
    else:
        _breach(f"first byte {first:#04x}")
    if at > len(body) or (kind != "uint" and number > len(body) - at):
        _breach("a length goes beyond its frame")
    if kind == "uint":
        if number > UINT_MAX:
            _breach("a number is too large")
        return number, at
    if kind == "bin":
        return body[at : at + number], at + number
    if kind == "str":
        try:
            return body[at : at + number].decode("utf-8"), at + number
        except UnicodeDecodeError:
            _breach("a string is not UTF-8")
    if depth >= DEPTH_MAX:
        _breach("nested too deep")
    elements = []
    for _ in range(number):
        element, at = _unpack(body, at, depth + 1)
        elements.append(element)
    return elements, at


# What the manager may send to this client: u uint, s str, b bool, B bin, a array, capitals U S N: or nil (section 14).
_MESSAGES: Dict[int, Tuple[str, str]] = {
    0x40: ("hello", "suuuuua"), 0x41: ("authChallenge", "s"), 0x42: ("authOk", "s"),
    0x43: ("sessionOpened", "BbBuusa"), 0x44: ("heartbeat", "uaabuua"), 0x45: ("control", "ua"),
    0x46: ("closing", "us"), 0x47: ("done", "u"), 0x48: ("refused", "uusuu"), 0x49: ("opened", "uusau"),
    0x4A: ("putDone", "uuu"), 0x4B: ("putItems", "uaaa"), 0x4C: ("leased", "ua"), 0x4E: ("items", "ua"), 0x50: ("stats", "ua"),
    0x51: ("outcome", "ua"),
}  # fmt: skip
_ANSWERS = frozenset(("done", "refused", "opened", "putDone", "putItems", "leased", "items", "stats", "outcome"))
_DELIVERY, _OUTCOME, _REASON = "uuuB", "uuuuN", "uus"
_KINDS: Dict[str, Tuple[type, ...]] = {
    "u": (int,), "s": (str,), "b": (bool,), "B": (bytes,), "a": (list,), "S": (str, type(None)),
    "N": (bytes, type(None)),
}  # fmt: skip


def _check(elements: Any, shape: str, what: str) -> List[Any]:
    """Whether there are at least these elements, of these kinds; more of them are from a later version."""
    if not isinstance(elements, list) or len(elements) < len(shape):
        _breach(f"too few elements in {what}")
    for element, kind in zip(elements, shape):
        if type(element) not in _KINDS[kind]:
            _breach(f"{what} has an element of a wrong type")
    return elements


def _uints(elements: Any, what: str) -> List[int]:
    if not isinstance(elements, list) or any(type(element) is not int for element in elements):
        _breach(f"{what} is not a list of numbers")
    return elements


def _messages(body: bytes) -> Iterator[Tuple[str, List[Any]]]:
    at = count = 0
    while at < len(body):
        count += 1
        if count > MESSAGES_PER_FRAME_MAX:
            _breach("too many messages in a frame")
        message, at = _unpack(body, at, 0)
        if not isinstance(message, list) or not 1 <= len(message) <= ELEMENTS_MAX:
            _breach("not a message")
        if type(message[0]) is not int or message[0] not in _MESSAGES:
            _breach(f"unknown type of message {message[0]!r}")
        name, shape = _MESSAGES[message[0]]
        yield name, _check(message[1:], shape, name)


# Payload bytes (section 8).


def encode(value: Any) -> bytes:
    """The payload bytes of a value: bytes as they are, everything else as JSON. NaN and infinities are ValueError."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"\x00" + bytes(value)
    return b"\x01" + json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def decode(data: bytes) -> Any:
    """The value of payload bytes. ValueError if they are of no codec that is known here."""

    def no_json(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    if data[:1] == b"\x00":
        return data[1:]
    if data[:1] != b"\x01":
        raise ValueError("a payload of an unknown codec")
    try:
        return json.loads(data[1:].decode("utf-8"), parse_constant=no_json)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


# Login (section 6).


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _attributes(text: str, names: str, more: bool) -> List[str]:
    """The values of a SCRAM text, whose attributes begin with `names` in this order, and whether more may follow."""
    if not 1 <= len(text) <= 900 or any(not " " <= char <= "~" for char in text):
        _breach("not a SCRAM text")
    pairs = [part.split("=", 1) for part in text.split(",")]
    found = [pair[0] for pair in pairs]
    if any(len(pair) < 2 or len(pair[0]) != 1 for pair in pairs) or "m" in found or len(set(found)) < len(found):
        _breach("bad attributes in a SCRAM text")
    if found[: len(names)] != list(names) or (len(found) > len(names) and not more):
        _breach("attributes of a SCRAM text are missing or out of order")
    return [pair[1] for pair in pairs[: len(names)]]


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        _breach("bad Base64 in a SCRAM text")


class _Scram:
    """One login: `first`, then `final` of the challenge, then `check` of the manager's proof."""

    def __init__(self, user: str, key: Union[str, bytes], hello_hash: bytes) -> None:
        self._key = unicodedata.normalize("NFKC", key).encode("utf-8") if isinstance(key, str) else key
        if not 1 <= len(self._key) <= 1_024:
            raise ValueError("a key has 1 to 1,024 bytes")
        self._nonce = base64.b64encode(secrets.token_bytes(18)).decode("ascii")
        self._bare = f"n={user},r={self._nonce}"
        self._hello_hash = base64.b64encode(hello_hash).decode("ascii")
        self._signature = b""

    def first(self) -> str:
        return f"n,,{self._bare}"

    def final(self, challenge: str) -> str:
        nonce, salt_text, iterations_text = _attributes(challenge, "rsi", more=True)
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise AuthenticationFailed("the manager's nonce does not extend the one it was sent", 65)
        if not re.fullmatch("[1-9][0-9]{0,9}", iterations_text) or not ITERATIONS_MIN <= int(iterations_text) <= ITERATIONS_MAX:
            raise AuthenticationFailed(f"iterations are not in {ITERATIONS_MIN}..{ITERATIONS_MAX}", 65)
        salted = hashlib.pbkdf2_hmac("sha256", self._key, _base64(salt_text), int(iterations_text), 32)
        client_key, server_key = _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key")
        without_proof = f"c=biws,r={nonce},h={self._hello_hash}"
        message = f"{self._bare},{challenge},{without_proof}".encode("ascii")
        stored_key = hashlib.sha256(client_key).digest()
        proof = bytes(a ^ b for a, b in zip(client_key, _hmac(stored_key, message)))
        self._signature = _hmac(server_key, message)
        return f"{without_proof},p={base64.b64encode(proof).decode('ascii')}"

    def check(self, text: str) -> None:
        (signature,) = _attributes(text, "v", more=False)
        if not hmac.compare_digest(_base64(signature), self._signature):
            raise AuthenticationFailed("the manager does not have this key: it may be an impostor", 65)


# What callers see.


@dataclass(frozen=True)
class Item:
    """A task to put, with options: see section 9. `delay` and `ttl` are seconds; a lower `priority` goes first."""

    payload: Any
    id: Optional[str] = None
    priority: Optional[int] = None
    delay: Optional[float] = None
    ttl: Optional[float] = None
    key: Optional[str] = None
    labels: Optional[Sequence[str]] = None
    trace: Optional[str] = None


class Put(NamedTuple):
    """What became of an item: accepted, duplicate, full or spent; `first` is where the task of a duplicate stands."""

    task: int
    status: str
    first: Optional[str] = None


class Reason(NamedTuple):
    attempt: int
    reason: int
    text: str


class Outcome(NamedTuple):
    """How a task ended. `value` is the result of a success, the error of a failure, else the payload."""

    task: int
    kind: str
    attempts: int
    ended_at_ms: int
    value: Any
    reasons: List[Reason]


def _ms(seconds: Optional[float], most: int, what: str) -> Optional[int]:
    if seconds is None:
        return None
    ms = math.ceil(seconds * 1_000)
    if not 0 <= ms <= most:
        raise ValueError(f"{what} of {seconds} s is not in 0..{most} ms")
    return ms


def _text(text: Optional[str], most: int, what: str) -> Optional[str]:
    if text is not None and len(text.encode("utf-8")) > most:
        raise ValueError(f"{what} has more than {most} bytes")
    return text


def _bytes(value: Any, most: int, what: str) -> bytes:
    data = encode(value)
    if len(data) > most:
        raise PayloadTooLarge(f"{what} has {len(data)} bytes of at most {most}", 3, value=len(data), limit=most)
    return data


def _item(value: Any) -> Any:
    """A payload or an `Item`, as it is on the wire."""
    item = value if isinstance(value, Item) else Item(value)
    payload = _bytes(item.payload, PAYLOAD_BYTES_MAX, "a payload")
    if item.priority is not None and not 0 <= item.priority <= 255:
        raise ValueError("priority is not in 0..255")
    if item.labels is not None and len(item.labels) > 16:
        raise ValueError("more than 16 labels")
    options = [
        _text(item.id, 4_096, "id"),
        item.priority,
        _ms(item.delay, DELAY_MS_MAX, "delay"),
        _ms(item.ttl, DELAY_MS_MAX, "ttl"),
        _text(item.key, 1_024, "key"),
        None if item.labels is None else [_text(label, 256, "label") for label in item.labels],
        _text(item.trace, 256, "trace"),
    ]
    return payload if all(option is None for option in options) else [payload, *options]


class Task:
    """A leased task. `lost` and `cancelled` become true when the manager says so: stop, and report nothing."""

    def __init__(self, client: Client, item: Any) -> None:
        number, fence, attempt, raw, *rest = _check(item, _DELIVERY, "a delivery")
        key, trace, checkpoint, *_ = [*rest, None, None, None]
        _check([key, trace, checkpoint], "SSN", "a delivery")
        self._client = client
        self.number: int = number
        self.fence: int = fence
        self.attempt: int = attempt
        self.raw: bytes = raw
        self.key: Optional[str] = key
        self.trace: Optional[str] = trace
        self._checkpoint: Optional[bytes] = checkpoint
        self.lost = False
        self.cancelled = False

    @property
    def payload(self) -> Any:
        """The payload. ValueError if it cannot be decoded: `fail` such a task with reason "undecodable"."""
        return decode(self.raw)

    @property
    def checkpoint(self) -> Any:
        """What an earlier attempt saved, or None."""
        return None if self._checkpoint is None else decode(self._checkpoint)

    def started(self) -> None:
        """Says that the work has begun: from here on a lost lease counts as an attempt."""
        self._client._send(0x19, [self.number, self.fence])

    def commit(self, result: Any = None, puts: Iterable[Tuple[Queue, Any]] = ()) -> None:
        """Ends the task in success. `puts` are tasks that are put if and only if this is done."""
        item = [self.number, self.fence, _bytes(result, RESULT_BYTES_MAX, "a result")]
        children = [[queue.number, _item(value)] for queue, value in puts]
        self._client._change(self, 0x16, [[*item, [children, [], [], []]] if children else item], False, ends=True)

    def fail(
        self, text: str, reason: str = "failed", error: Any = None, retry_after: Optional[float] = None
    ) -> None:
        """Ends the attempt: it comes again, or after the last one ends as a failure (with `error`) or dead."""
        body = None if error is None else _bytes(error, RESULT_BYTES_MAX, "an error")
        after = _ms(retry_after, DELAY_MS_MAX, "retry_after")
        item = [self.number, self.fence, REASONS[reason], body, _text(text, 16_384, "text"), after]
        self._client._change(self, 0x18, [item], ends=True)

    def release(self) -> None:
        """Gives the task back, uncounted."""
        self._client._change(self, 0x17, [self.number, self.fence], ends=True)

    def renew(self) -> None:
        """Renews the lease by a full term, as every heartbeat does."""
        self._client._change(self, 0x1B, [self.number, self.fence])

    def save(self, checkpoint: Any) -> None:
        """Saves progress, which the next attempt finds as `checkpoint`."""
        value = _bytes(checkpoint, RESULT_BYTES_MAX, "a checkpoint")
        self._client._change(self, 0x28, [[self.number, self.fence, value]])


class Queue:
    """A queue of the manager; `client.queue(name)` makes one."""

    def __init__(self, client: Client, name: str, answer: List[Any]) -> None:
        self._client = client
        self.name = name
        self.number: int = answer[1]
        self.durability: str = answer[2]
        self.policy: Dict[str, int] = dict(zip(POLICY, _uints(answer[3], "a policy")))

    def put(self, value: Any, wait: Optional[float] = None) -> Put:
        """Puts one payload or `Item`. Raises Full when there was no room in time, Closed, or Spent."""
        put = self.put_all([value], wait=wait)[0]
        if put.status == "spent":
            raise Spent(f"queue {self.name!r} takes no more tasks")
        return put

    def put_all(self, values: Iterable[Any], wait: Optional[float] = None, atomic: bool = False) -> List[Put]:
        """Puts payloads and `Item`s in their order, in messages of a fitting size; look at each `status`.

        Full and Closed are raised only when nothing was put. What happened is unknown after an indefinite error:
        items with an id may be put again without harm.
        """
        batches: List[List[Any]] = [[]]
        size = 0
        for item in map(_item, values):
            bytes_ = len(item) if isinstance(item, bytes) else len(item[0])
            if batches[-1] and (len(batches[-1]) == BATCH_ITEMS_MAX or size + bytes_ > BATCH_BYTES):
                batches.append([])
                size = 0
            batches[-1].append(item)
            size += bytes_
        if atomic and len(batches) > 1:
            raise ValueError("too much for one atomic put")
        _ms(wait, WAIT_MS_MAX, "wait")
        until = None if wait is None else time.monotonic() + wait
        puts: List[Put] = []
        for batch in filter(None, batches):
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                puts += self._put(batch, _ms(left, WAIT_MS_MAX, "wait"), atomic)
            except (Full, Closed) as error:
                if not puts:
                    raise
                puts += [Put(0, "full" if isinstance(error, Full) else "spent")] * len(batch)
        return puts

    def _put(self, batch: List[Any], wait_ms: Optional[int], atomic: bool) -> List[Put]:
        name, answer = self._client._request(0x11, ("putDone", "putItems"), self.number, atomic, wait_ms, batch)
        if name == "putDone":
            if answer[2] != len(batch):
                _breach("an answer for another number of tasks")
            return [Put(answer[1] + place, "accepted") for place in range(answer[2])]
        tasks, statuses, firsts = (_uints(column, "an answer to put") for column in answer[1:4])
        firsts = firsts or [0] * len(batch)
        if not len(tasks) == len(statuses) == len(firsts) == len(batch):
            _breach("an answer for another number of tasks")
        return [
            Put(task, _word(PUT_STATUSES, status), _word(STANDINGS, first) if status == 1 else None)
            for task, status, first in zip(tasks, statuses, firsts)
        ]

    def lease(self, count: int = 1, wait: Optional[float] = None) -> List[Task]:
        """Leases up to `count` tasks; none if the wait was over before the first. Closed: none will come any more."""
        try:
            return self._lease(count, wait, False)
        except Empty:
            return []

    def get(self, wait: Optional[float] = None) -> Any:
        """Takes one task off the queue for good and returns its payload. Raises Empty when the wait was over."""
        task = self._lease(1, wait, True)[0]
        try:
            payload = task.payload
        except ValueError:
            task.fail("the payload does not decode", "undecodable")
            raise
        self._client._send(0x1A, [task.number, task.fence])
        self._client._drop(task)
        return payload

    def _lease(self, count: int, wait: Optional[float], get: bool) -> List[Task]:
        if not 1 <= count <= BATCH_ITEMS_MAX:
            raise ValueError(f"count is not in 1..{BATCH_ITEMS_MAX}")
        wait_ms = _ms(wait, WAIT_MS_MAX, "wait")
        return self._client._request(0x12, ("leased",), self.number, count, wait_ms, get)[1]

    def outcome(self, task: int, wait: Optional[float] = None) -> Outcome:
        """How a task ended. Raises TimedOut if it had not when the wait was over, TaskNotFound."""
        wait_ms = _ms(wait, WAIT_MS_MAX, "wait")
        _, answer = self._client._request(0x20, ("outcome",), self.number, task, wait_ms)
        number, kind, attempts, ended, body, *rest = _check(answer[1], _OUTCOME, "an outcome")
        listed = _check(rest, "a", "an outcome")[0] if rest else []
        reasons = [Reason(*_check(reason, _REASON, "a reason")[:3]) for reason in listed]
        value = None if body is None else decode(body)
        return Outcome(number, _word(OUTCOMES, kind), attempts, ended, value, reasons)

    def join(self, wait: Optional[float] = None) -> None:
        """Waits until no task is ready, delayed or leased. Raises TimedOut when the wait was over before."""
        self._client._request(0x1E, ("done",), self.number, _ms(wait, WAIT_MS_MAX, "wait"))

    def stats(self) -> Dict[str, Any]:
        """The counts of the queue, by the names of section 13."""
        _, answer = self._client._request(0x1D, ("stats",), self.number)
        if len(answer[1]) != 1 or not isinstance(answer[1][0], list):
            _breach("the counts of another number of queues")
        return dict(zip(COUNTS, answer[1][0]))

    def close(self, immediate: bool = False) -> None:
        """Takes no more puts; `immediate` also cancels what waits."""
        self._client._request(0x1F, ("done",), self.number, immediate)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,200}", text):
        raise ValueError(f"{text!r} is not a name: 1 to 200 of A-Z a-z 0-9 . _ : -")
    return text


def _word(words: Sequence[str], number: int) -> str:
    return words[number] if number < len(words) else str(number)


class _Waiting:
    """A request without an answer."""

    def __init__(self, expects: Sequence[str]) -> None:
        self.expects = expects
        self.over = threading.Event()
        self.answer: Optional[Tuple[str, List[Any]]] = None
        self.error: Optional[MillraceError] = None
        self.abandoned = False


class Client:
    """One connection and its session; `connect` makes one. Closing it gives back what is still leased."""

    def __init__(self, connection: socket.socket, key: Union[str, bytes], user: str, agent: str) -> None:
        self.draining = False
        self._socket = connection
        self._sending = threading.RLock()
        self._lock = threading.Lock()
        self._waiting: Dict[int, _Waiting] = {}
        self._requests = 0
        self._answered: List[int] = []
        self._held: Dict[int, Task] = {}
        self._beats: Dict[int, Tuple[Dict[int, Task], threading.Event]] = {}
        self._sequence = 0
        self._error: Optional[MillraceError] = None
        self._wake = threading.Event()
        self._handshake(key, user, agent)
        connection.settimeout(DEAD_SECONDS)
        self._reader = threading.Thread(target=self._read, name="millrace-reader", daemon=True)
        self._heart = threading.Thread(target=self._beat, name="millrace-heartbeat", daemon=True)
        self._reader.start()
        self._heart.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def queue(self, name: str, create: bool = True, **policy: int) -> Queue:
        """Opens a queue, or makes it with these numbers of `POLICY`; one that is there keeps its own.

        With `create` false a queue that is not there is QueueNotFound.
        """
        unknown = set(policy) - set(POLICY)
        if unknown:
            raise TypeError(f"no such number of a policy: {', '.join(sorted(unknown))}")
        numbers = [policy.get(word, default) for word, default in POLICY.items()] if policy else []
        definition = numbers if create else None
        _, answer = self._request(0x10, ("opened",), _name(name), b"", "", [], definition)
        queue = Queue(self, name, answer)
        self._interval = min(self._interval, queue.policy["lease_ms"] / 3_000)
        self._wake.set()
        return queue

    def heartbeat(self) -> None:
        """Renews every lease that is held, now, and returns when the manager has answered."""
        for answered in self._heartbeat():
            answered.wait()
        if self._error is not None:
            raise self._lost(definite=False)

    def close(self) -> None:
        """Says goodbye. Requests of other threads that have no answer yet end with ConnectionLost."""
        self._tell(0x06)
        self._reader.join(HANDSHAKE_SECONDS)
        self._over(ConnectionLost("this client was closed", definite=False))
        self._reader.join(HANDSHAKE_SECONDS)
        self._heart.join(HANDSHAKE_SECONDS)
        self._socket.close()

    # Bytes and frames.

    def _handshake(self, key: Union[str, bytes], user: str, agent: str) -> None:
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        sent = self._write(0x01, "millrace", 1, 1, 0, FRAME_BYTES_MAX, "", "default", _text(agent, 200, "agent"))
        received, (magic, version, _, _, _, _, mechanisms, *_) = self._expect("hello", deadline)
        if magic != "millrace":
            _breach("wrong magic")
        if version != 1:
            raise VersionUnsupported(f"the manager answers in version {version}", 66)
        if "SCRAM-SHA-256" not in mechanisms:
            raise AuthenticationFailed("the manager does not offer SCRAM-SHA-256", 65)
        scram = _Scram(_name(user), key, hashlib.sha256(sent + received).digest())
        self._write(0x02, "SCRAM-SHA-256", scram.first())
        self._write(0x03, scram.final(self._expect("authChallenge", deadline)[1][0]))
        scram.check(self._expect("authOk", deadline)[1][0])
        self._write(0x04, None, [])
        _, opened = self._expect("sessionOpened", deadline)
        self.instance: bytes = opened[2]
        self.durability: str = opened[5]
        self._interval = max(opened[3], 1) / 1_000
        self._slots = threading.Semaphore(max(opened[4], 1))

    def _expect(self, name: str, deadline: float) -> Tuple[bytes, List[Any]]:
        """The one message of the next frame, and the frame's body."""
        body = self._frame(FRAME_BYTES_MAX_LOGIN, deadline)
        messages = list(_messages(body))
        if messages[0][0] == "closing":
            raise _closing(*messages[0][1][:2])
        if len(messages) != 1 or messages[0][0] != name:
            _breach(f"{messages[0][0]} instead of {name}")
        return body, messages[0][1]

    def _frame(self, most: int, deadline: Optional[float] = None) -> bytes:
        length = int.from_bytes(self._exactly(4, deadline), "big")
        if not 1 <= length <= most:
            _breach(f"a frame of {length} bytes")
        return self._exactly(length, deadline)

    def _exactly(self, count: int, deadline: Optional[float]) -> bytes:
        """So many bytes. Memory grows with what has arrived, not with what was announced."""
        data = bytearray()
        while len(data) < count:
            if deadline is not None:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = self._socket.recv(min(count - len(data), 65_536))
            if not chunk:
                raise OSError("the manager closed it")
            data += chunk
        return bytes(data)

    def _write(self, kind: int, *elements: Any) -> bytes:
        """Writes one message as one frame, and returns the frame's body."""
        frame = bytearray(4)
        _pack([kind, *elements], frame)
        if len(frame) - 4 > FRAME_BYTES_MAX:
            raise ValueError("too much for one message")
        frame[:4] = (len(frame) - 4).to_bytes(4, "big")
        with self._sending:
            try:
                rest = memoryview(frame)
                while rest:
                    rest = rest[self._socket.send(rest) :]
            except BaseException:
                # Half a frame may be out, after which nothing else can be said.
                self._shut()
                raise
        return bytes(frame[4:])

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    # The end of the connection.

    def _send(self, kind: int, *elements: Any) -> None:
        if self._error is not None:
            raise self._lost(definite=True)
        try:
            self._write(kind, *elements)
        except OSError as error:
            self._over(ConnectionLost(f"the connection is lost: {error}", definite=False))
            raise self._lost(definite=False) from error

    def _tell(self, kind: int, *elements: Any) -> None:
        """Sends what nobody waits for: if the connection is lost, whoever waits for something is told."""
        try:
            self._send(kind, *elements)
        except MillraceError:
            pass

    def _over(self, error: MillraceError) -> None:
        """The connection is over: nothing that waits will be answered."""
        with self._lock:
            if self._error is None:
                self._error = error
            waiting, self._waiting = self._waiting, {}
            beats, self._beats = self._beats, {}
        for one in waiting.values():
            one.error = self._lost(definite=False)
            one.over.set()
            self._slots.release()
        for _, answered in beats.values():
            answered.set()
        self._wake.set()
        self._shut()

    def _lost(self, definite: bool) -> MillraceError:
        """Why the connection is over, for one caller; definite for what was never sent."""
        cause = self._error or ConnectionLost("the connection is over")
        return type(cause)(str(cause), cause.code, definite)

    # What arrives, in a thread of its own.

    def _read(self) -> None:
        try:
            while True:
                for name, message in _messages(self._frame(FRAME_BYTES_MAX)):
                    if name == "closing":
                        return self._over(_closing(*message[:2]))
                    self._handle(name, message)
        except MillraceError as error:
            self._over(error)
        except Exception as error:
            self._over(ConnectionLost(f"the connection is lost: {error}", definite=False))

    def _handle(self, name: str, message: List[Any]) -> None:
        if name in _ANSWERS:
            self._answer(name, message)
        elif name == "heartbeat":
            with self._lock:
                held, answered = self._beats.pop(message[0], ({}, threading.Event()))
            # It speaks of the leases that the heartbeat named: a task may have been leased anew since.
            for column, attribute in ((message[1], "lost"), (message[2], "cancelled")):
                for number in _uints(column, attribute):
                    self._stop(held.get(number), attribute)
            self.draining = self.draining or message[3]
            answered.set()
        elif name == "control":
            self.draining = self.draining or message[0] == 1
            for number in _uints(message[1], "tasks") if message[0] == 2 else []:
                self._stop(self._held.get(number), "cancelled")
        else:
            _breach(f"{name} out of its place")

    def _stop(self, task: Optional[Task], attribute: str) -> None:
        if task is not None and self._drop(task):
            setattr(task, attribute, True)

    def _answer(self, name: str, message: List[Any]) -> None:
        tasks = [Task(self, item) for item in message[1]] if name == "leased" else []
        with self._lock:
            waiting = self._waiting.pop(message[0], None)
            if waiting is None or (name != "refused" and name not in waiting.expects):
                _breach(f"{name} for a request that does not wait for it")
            self._answered.append(message[0])
            for task in tasks if not waiting.abandoned else ():
                older = self._held.get(task.number)
                if older is not None:
                    older.lost = True
                self._held[task.number] = task
            waiting.error = _refusal(*message[1:5]) if name == "refused" else None
            waiting.answer = (name, tasks if name == "leased" else message)
        waiting.over.set()
        self._slots.release()

    # Requests.

    def _request(self, kind: int, expects: Sequence[str], *elements: Any) -> Tuple[str, List[Any]]:
        """Sends a request and waits for its answer."""
        self._slots.acquire()
        waiting = _Waiting(expects)
        number = self._ask(waiting, kind, elements)
        try:
            waiting.over.wait()
        except BaseException:
            # Interrupted: leases that come all the same are not renewed, and go back after their term.
            with self._lock:
                waiting.abandoned = True
                for task in waiting.answer[1] if waiting.answer is not None and "leased" in expects else ():
                    self._held.pop(task.number, None)
            self._tell(0x22, number)
            raise
        self._acknowledge()
        if waiting.answer is None or waiting.error is not None:
            raise waiting.error or self._lost(definite=False)
        return waiting.answer

    def _ask(self, waiting: _Waiting, kind: int, elements: Sequence[Any]) -> int:
        """Sends a request, for which a slot is taken. Numbers rise in the order in which requests are sent."""
        with self._sending:
            with self._lock:
                error = None if self._error is None else self._lost(definite=True)
                self._requests += 1
                number = self._requests
                if error is None:
                    self._waiting[number] = waiting
            try:
                if error is not None:
                    raise error
                self._send(kind, number, *elements)
            except BaseException:
                with self._lock:
                    waits = self._waiting.pop(number, None) is not None
                if waits or error is not None:
                    self._slots.release()
                raise
        return number

    def _acknowledge(self) -> None:
        """Tells the manager, now and then, that it may forget answers which have come."""
        with self._lock:
            if len(self._answered) < ACKNOWLEDGE_EVERY or self._error is not None:
                return
            numbers, self._answered = sorted(self._answered), []
        ranges: List[int] = []
        for number in numbers:
            if ranges and ranges[-1] == number - 1:
                ranges[-1] = number
            else:
                ranges += (number, number)
        self._tell(0x34, ranges)

    def _change(self, task: Task, kind: int, *elements: Any, ends: bool = False) -> None:
        """A request about one lease, which is forgotten if it is over then."""
        name, answer = self._request(kind, ("done", "items"), *elements)
        codes = [0] if name == "done" else _uints(answer[1], "codes")
        if len(codes) != 1:
            _breach("an answer for another number of items")
        if codes[0] in (7, 8) or (ends and codes[0] == 0):
            self._drop(task)
        if codes[0] != 0:
            raise _refusal(codes[0], f"#{task.number}", task.number)

    # Leases.

    def _drop(self, task: Task) -> bool:
        """Forgets a lease; whether it was held."""
        with self._lock:
            held = self._held.get(task.number) is task
            if held:
                del self._held[task.number]
        return held

    def _heartbeat(self) -> List[threading.Event]:
        events: List[threading.Event] = []
        with self._lock:
            held = list(self._held.items())
        for at in range(0, max(len(held), 1), HELD_MAX):
            part = dict(held[at : at + HELD_MAX])
            with self._lock:
                self._sequence += 1
                sequence, answered = self._sequence, threading.Event()
                if self._error is None:
                    self._beats[sequence] = (part, answered)
            self._send(0x05, sequence, [number for task in part.values() for number in (task.number, task.fence)])
            events.append(answered)
        return events

    def _beat(self) -> None:
        last = time.monotonic()
        try:
            while self._error is None:
                # Woken early when a queue with a shorter term is opened, and at the end.
                self._wake.wait(max(0.0, last + self._interval - time.monotonic()))
                self._wake.clear()
                if time.monotonic() >= last + self._interval:
                    last = time.monotonic()
                    self._heartbeat()
        except MillraceError:
            pass


def connect(
    host: str = "127.0.0.1",
    port: int = 8001,
    *,
    key: Union[str, bytes],
    user: str = "default",
    path: Optional[str] = None,
    agent: str = "millrace-python/1",
) -> Client:
    """Connects to a manager at a TCP address, or with `path` at a Unix socket, and logs in."""
    try:
        if path is None:
            connection = socket.create_connection((host, port), HANDSHAKE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(HANDSHAKE_SECONDS)
            connection.connect(path)
    except OSError as error:
        raise ConnectFailed(f"no connection: {error}") from error
    try:
        return Client(connection, key, user, agent)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise ConnectFailed(f"no session: {error}") from error
        raise
