"""Clients that begin a request and never finish it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

# How a request begins that goes on for ever: in its head, or in its body.
BEGINNINGS = {
    "head": b"POST /patients HTTP/1.1\r\nHost: clinic\r\nX-Slow: ",
    "body": b"POST /patients HTTP/1.1\r\nHost: clinic\r\nContent-Type: application/json\r\n"
    b"Content-Length: 200000\r\n\r\n{",
    "chunks": b"POST /patients HTTP/1.1\r\nHost: clinic\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n30000\r\n{",
    "too much": b"POST /patients HTTP/1.1\r\nHost: clinic\r\nContent-Type: application/json\r\n"
    b"Content-Length: 90000000\r\n\r\n{",
}


@contextmanager
def slow_clients(url: str, count: int, beginning: str, authority: Path | None = None) -> Iterator[None]:
    """So many connections to `url`, each sending a byte a second while the block lasts.

    `authority` is the file that vouches for a server that speaks TLS.
    """
    address = urlsplit(url)
    opened: list[socket.socket] = []
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(1.0):
            for one in opened:
                with suppress(OSError):
                    one.sendall(b"a")

    slow = threading.Thread(target=trickle)
    try:
        for _ in range(count):
            one = socket.create_connection((address.hostname, address.port or 80), timeout=10)
            if authority is not None:
                context = ssl.create_default_context(cafile=str(authority))
                one = context.wrap_socket(one, server_hostname=address.hostname)
            opened.append(one)
            one.sendall(BEGINNINGS[beginning])
        slow.start()
        yield
    finally:
        stop.set()
        if slow.is_alive():
            slow.join()
        for one in opened:
            one.close()
