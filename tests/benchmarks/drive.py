"""A lean client: keep-alive connections driven from one thread, which costs less than what it measures."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest
from urllib.parse import urlsplit

import psutil

LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.I)
TIMEOUT_S = 30.0

# What the connection at a place sends next: a whole request.
Script = Callable[[int], bytes]
# What the connection at a place was answered.
Ear = Callable[[int, bytes], None]


class BenchError(RuntimeError):
    """What is measured does not answer as it should."""


@dataclass
class Sample:
    """What some seconds of driving showed: latencies and length in seconds, statuses, the client's CPU."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    elapsed_s: float = 0.0
    client_cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies_s) / self.elapsed_s

    def merge(self, other: Sample) -> None:
        """Add what another stretch showed."""
        self.latencies_s += other.latencies_s
        self.statuses += other.statuses
        self.elapsed_s += other.elapsed_s
        self.client_cpu_s += other.client_cpu_s


class Connection:
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.socket = socket.create_connection((place.hostname or "", place.port or 80), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0

    @property
    def local_port(self) -> int:
        """By which the server's side knows it."""
        return int(self.socket.getsockname()[1])

    def send(self, request: bytes) -> None:
        """Put a request on its way."""
        self.received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Read what is there: status and body once the answer is whole."""
        part = self.socket.recv(262_144)
        if not part:
            raise BenchError(f"the server hung up after {self.received[:200]!r}")
        self.received = self.received + part if self.received else part
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = LENGTH.search(self.received, 0, end + 2)
        if length is None:
            raise BenchError(f"an answer without length: {self.received[:end]!r}")
        body = self.received[end + 4 :]
        return (int(self.received[9:12]), body) if len(body) >= int(length[1]) else None

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """One request and its answer."""
        self.send(request)
        while (answer := self.receive()) is None:
            pass
        return answer


def spread(url: str, processes: Sequence[psutil.Process], count: int) -> list[Connection]:
    """`count` connections, as many to each worker process as to the next: chance would decide otherwise."""
    probe = b"GET /health/live HTTP/1.1\r\nHost: bench\r\n\r\n"
    most = -(-count // len(processes))
    found: dict[int, list[Connection]] = {process.pid: [] for process in processes}
    spare: list[Connection] = []
    for _try in range(100 * count):
        connection = Connection(url)
        connection.ask(probe)
        owner = _owner(processes, connection.local_port)
        (spare if len(found[owner]) == most else found[owner]).append(connection)
        if sum(map(len, found.values())) == count:
            break
    else:
        raise BenchError("one worker takes all connections")
    for connection in spare:
        connection.socket.close()
    return [connection for row in zip_longest(*found.values()) for connection in row if connection]


def _owner(processes: Sequence[psutil.Process], port: int) -> int:
    for process in processes:
        for peer in process.net_connections("tcp"):
            if peer.raddr and peer.raddr.port == port:
                return process.pid
    raise BenchError("no worker holds the connection")


def drive(
    connections: Sequence[Connection], script: Script, ear: Ear, seconds: float, *wanted: int
) -> Sample:
    """Keep every connection busy for `seconds`; raises BenchError for a status that is not in `wanted`."""
    sample = Sample()
    with closing(selectors.DefaultSelector()) as selector:
        for place, connection in enumerate(connections):
            selector.register(connection.socket, selectors.EVENT_READ, (place, connection))
        cpu, began = time.thread_time(), time.perf_counter()
        until = began + seconds
        for place, connection in enumerate(connections):
            connection.send(script(place))
        waiting = len(connections)
        while waiting:
            ready = selector.select(TIMEOUT_S)
            if not ready:
                raise BenchError(f"no answer within {TIMEOUT_S} s")
            for key, _events in ready:
                place, connection = key.data
                answer = connection.receive()
                if answer is None:
                    continue
                now = time.perf_counter()
                sample.latencies_s.append(now - connection.sent_at)
                status, body = answer
                sample.statuses[status] += 1
                if status not in wanted:
                    raise BenchError(f"{status}: {body[:500]!r}")
                ear(place, body)
                if now < until:
                    connection.send(script(place))
                else:
                    waiting -= 1
        sample.elapsed_s = time.perf_counter() - began
        sample.client_cpu_s = time.thread_time() - cpu
    return sample
