"""A mail server (aiosmtpd) and an HTTP gateway for tests of messages."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.servers import free_port

Answers = dict[str, str]  # step of the dialogue -> answer of the server


class MailServer:
    """A mail server whose answers a test chooses: a reply, `hang` for none, or `close` for a hang-up."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.accepted: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.on_accept: Callable[[EmailMessage], None] = lambda _mail: None
        self.released = asyncio.Event()

    async def _answer(self, server: SMTP, step: str) -> str:
        answer = self.answers.get(step, "250 OK")
        if answer == "hang":
            await self.released.wait()
        if answer in ("close", "hang"):
            server.transport.abort()
            raise ConnectionResetError
        return answer

    async def handle_MAIL(  # noqa: N802 - the name of aiosmtpd
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self._answer(server, "MAIL")
        if answer.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        answer = await self._answer(server, "RCPT")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        mail = message_from_bytes(content, policy=policy.default)
        answer = self.answers.get("DATA", "250 OK")
        if answer.startswith("250") or self.answers.get("keeps"):
            self.accepted.append(mail)  # type: ignore[arg-type]
            self.recipients += envelope.rcpt_tos
            self.on_accept(mail)  # type: ignore[arg-type]
        return await self._answer(server, "DATA")

    async def handle_exception(self, _error: Exception) -> str:
        return "421 closing"


@contextmanager
def mail_server(**options: Any) -> Iterator[tuple[MailServer, str]]:
    """Run a mail server. Yield it with its URL."""
    server = MailServer()
    port = free_port()
    controller = Controller(server, hostname="127.0.0.1", port=port, enable_SMTPUTF8=True, **options)
    controller.start()
    try:
        yield server, f"smtp://127.0.0.1:{port}"
    finally:
        controller.loop.call_soon_threadsafe(server.released.set)
        controller.stop()


@contextmanager
def trickling_server(sent: bytes, *, accepts_after: bytes = b"") -> Iterator[int]:
    """Run a server that sends bytes again and again, one every 20 ms. Yield its port.

    It reads until `accepts_after` first. A byte arrives within every timeout of a read.
    """
    stopped = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _address = listener.accept()
        with connection, suppress(OSError):
            received = b""
            while accepts_after not in received and (part := connection.recv(65536)):
                received += part
            for byte in itertools.cycle(sent):
                if stopped.wait(0.02):
                    return
                connection.sendall(bytes([byte]))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stopped.set()
        thread.join()
        listener.close()


class Gateway:
    """An HTTP gateway: it records the requests, and a test chooses status, headers and body."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 200, dict[str, str](), b"{}"
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.hangs = self.closes = False
        self.released = threading.Event()
        self.on_request: Callable[[bytes], None] = lambda _body: None

    def answers(self, body: Any, status: int = 200) -> None:
        self.status, self.body = status, json.dumps(body).encode()


@contextmanager
def http_gateway() -> Iterator[tuple[Gateway, str]]:
    """Run an HTTP gateway. Yield it with its URL."""
    gateway = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            gateway.requests.append((self.path, dict(self.headers.items()), content))
            gateway.on_request(content)
            if gateway.hangs:
                gateway.released.wait(30)
            if gateway.hangs or gateway.closes:
                self.close_connection = True
                return
            self.send_response(gateway.status)
            for name, value in gateway.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(gateway.body)))
            self.end_headers()
            self.wfile.write(gateway.body)

        def log_message(self, *_arguments: Any) -> None:
            """Write no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield gateway, f"http://127.0.0.1:{server.server_address[1]}/send?v=1"
    finally:
        gateway.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
