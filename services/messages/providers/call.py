"""The time limit of a whole call of another server.

The timeout of a socket counts for each read. A server that sends one byte at a time never exceeds it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

REPEAT_INTERVAL = 0.5  # seconds; TLS may replace the socket at the moment when the time is over


@contextlib.contextmanager
def time_limit(seconds: float, current_socket: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Shut down the socket of the call if the block takes longer. Its next read or write then fails.

    Raises `TimeoutError` in place of a `ConnectionError` that this causes.
    """
    ended, is_over = threading.Event(), threading.Event()

    def watch() -> None:
        wait = seconds
        while not ended.wait(wait):
            wait = REPEAT_INTERVAL
            is_over.set()
            connected = current_socket()
            if connected is not None:
                with contextlib.suppress(OSError):
                    # not the method of a TLS socket: it forgets the TLS state that the other thread uses
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)

    thread = threading.Thread(target=watch, name="time limit of a call", daemon=True)
    thread.start()
    try:
        yield
    except ConnectionError as error:
        if is_over.is_set():
            raise TimeoutError from error
        raise
    finally:
        ended.set()
        thread.join()
