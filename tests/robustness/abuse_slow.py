"""Slow clients: they begin a request and never finish it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

# The start of a request that never ends.
REQUEST_STARTS = {
    "head": b"POST /patients HTTP/1.1\r\nHost: clinic\r\nX-Slow: ",
    "body": b"POST /patients HTTP/1.1\r\nHost: clinic\r\nContent-Type: application/json\r\n"
    b"Content-Length: 200000\r\n\r\n{",
    "chunks": b"POST /patients HTTP/1.1\r\nHost: clinic\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n30000\r\n{",
    "too much": b"POST /patients HTTP/1.1\r\nHost: clinic\r\nContent-Type: application/json\r\n"
    b"Content-Length: 90000000\r\n\r\n{",
}


@contextmanager
def slow_clients(url: str, count: int, start: str, authority: Path | None = None) -> Iterator[None]:
    """Open `count` connections that send one byte a second during the block.

    `authority` is the CA certificate of a server with TLS.
    """
    address = urlsplit(url)
    clients: list[socket.socket] = []
    stop = threading.Event()

    def send_slowly() -> None:
        while not stop.wait(1.0):
            for client in clients:
                with suppress(OSError):
                    client.sendall(b"a")

    thread = threading.Thread(target=send_slowly)
    try:
        for _ in range(count):
            client = socket.create_connection((address.hostname, address.port or 80), timeout=10)
            if authority is not None:
                context = ssl.create_default_context(cafile=str(authority))
                client = context.wrap_socket(client, server_hostname=address.hostname)
            clients.append(client)
            client.sendall(REQUEST_STARTS[start])
        thread.start()
        yield
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
        for client in clients:
            client.close()
