"""A small HTTP client: one thread drives all keep-alive connections, so that it costs little CPU time."""

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

CONTENT_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.I)
TIMEOUT_S = 30.0

# Returns the next request of a connection (by its index), as it is sent.
NextRequest = Callable[[int], bytes]
# Receives the response body of a connection (by its index).
OnResponse = Callable[[int, bytes], None]


class BenchmarkError(RuntimeError):
    """A server does not answer as expected: the measurement is void."""


@dataclass
class Sample:
    """The responses of one measurement. Times are in seconds."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    elapsed_s: float = 0.0
    client_cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Responses per second."""
        return len(self.latencies_s) / self.elapsed_s

    def merge(self, other: Sample) -> None:
        """Add another measurement."""
        self.latencies_s += other.latencies_s
        self.statuses += other.statuses
        self.elapsed_s += other.elapsed_s
        self.client_cpu_s += other.client_cpu_s


class Connection:
    """A keep-alive connection with at most one open request."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname or "", address.port or 80), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0

    @property
    def local_port(self) -> int:
        """The port of this client, which identifies the connection on the server."""
        return int(self.socket.getsockname()[1])

    def send(self, request: bytes) -> None:
        """Send a request."""
        self.received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Read the available bytes. Return status and body when the response is complete, else None."""
        chunk = self.socket.recv(262_144)
        if not chunk:
            raise BenchmarkError(f"the server closed the connection after {self.received[:200]!r}")
        self.received = self.received + chunk if self.received else chunk
        header_end = self.received.find(b"\r\n\r\n")
        if header_end < 0:
            return None
        length = CONTENT_LENGTH.search(self.received, 0, header_end + 2)
        if length is None:
            raise BenchmarkError(f"a response without Content-Length: {self.received[:header_end]!r}")
        body = self.received[header_end + 4 :]
        return (int(self.received[9:12]), body) if len(body) >= int(length[1]) else None

    def request(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and wait for the response."""
        self.send(request)
        while (response := self.receive()) is None:
            pass
        return response


def connect_evenly(url: str, processes: Sequence[psutil.Process], count: int) -> list[Connection]:
    """Open `count` connections, the same number to each worker process.

    Without this, chance decides how many connections a worker accepts.
    """
    probe = b"GET /health/live HTTP/1.1\r\nHost: bench\r\n\r\n"
    limit = -(-count // len(processes))
    by_worker: dict[int, list[Connection]] = {process.pid: [] for process in processes}
    surplus: list[Connection] = []
    for _attempt in range(100 * count):
        connection = Connection(url)
        connection.request(probe)
        owner = _find_owner(processes, connection.local_port)
        (surplus if len(by_worker[owner]) == limit else by_worker[owner]).append(connection)
        if sum(map(len, by_worker.values())) == count:
            break
    else:
        raise BenchmarkError("one worker accepts all connections")
    for connection in surplus:
        connection.socket.close()
    return [connection for row in zip_longest(*by_worker.values()) for connection in row if connection]


def _find_owner(processes: Sequence[psutil.Process], port: int) -> int:
    for process in processes:
        for peer in process.net_connections("tcp"):
            if peer.raddr and peer.raddr.port == port:
                return process.pid
    raise BenchmarkError("no worker has the connection")


def send_load(
    connections: Sequence[Connection],
    next_request: NextRequest,
    on_response: OnResponse,
    seconds: float,
    *expected: int,
) -> Sample:
    """Keep every connection busy for `seconds`. Raise BenchmarkError for a status not in `expected`."""
    sample = Sample()
    with closing(selectors.DefaultSelector()) as selector:
        for index, connection in enumerate(connections):
            selector.register(connection.socket, selectors.EVENT_READ, (index, connection))
        cpu_before, started = time.thread_time(), time.perf_counter()
        end = started + seconds
        for index, connection in enumerate(connections):
            connection.send(next_request(index))
        open_requests = len(connections)
        while open_requests:
            ready = selector.select(TIMEOUT_S)
            if not ready:
                raise BenchmarkError(f"no response within {TIMEOUT_S} s")
            for key, _events in ready:
                index, connection = key.data
                response = connection.receive()
                if response is None:
                    continue
                now = time.perf_counter()
                sample.latencies_s.append(now - connection.sent_at)
                status, body = response
                sample.statuses[status] += 1
                if status not in expected:
                    raise BenchmarkError(f"{status}: {body[:500]!r}")
                on_response(index, body)
                if now < end:
                    connection.send(next_request(index))
                else:
                    open_requests -= 1
        sample.elapsed_s = time.perf_counter() - started
        sample.client_cpu_s = time.thread_time() - cpu_before
    return sample
