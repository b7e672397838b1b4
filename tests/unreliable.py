"""A proxy before a server of HTTP that drops, delays and refuses requests, as a seed says."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REFUSED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidAccessKeyId</Code>'
    b"<Message>The AWS Access Key Id you provided does not exist in our records.</Message></Error>"
)
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>Please reduce your '
    b"request rate.</Message></Error>"
)
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class Proxy(ThreadingHTTPServer):
    """Forwards to a port of this machine, unless the schedule has a fault for the request.

    Attributes
    ----------
    faults : dict of str to float
        The share of requests that meet each: ``"drop"`` (the connection ends before the answer),
        ``"cut"`` (in the middle of it), ``"delay"``, ``"500"``, ``"503"``, ``"403"`` and
        ``"hang"`` (no answer within seconds).
    seen : Counter
        How many met which; ``"ok"`` are the others.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.random, self.lock = port, random.Random(seed), threading.Lock()
        self.faults: dict[str, float] = {}
        self.seen: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self) -> str:
        with self.lock:
            at, found = self.random.random(), "ok"
            for kind, share in self.faults.items():
                at -= share
                if at < 0:
                    found = kind
                    break
            self.seen[found] += 1
            return found

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def forward(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else b""
        fault = self.server.draw()
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "hang":
            time.sleep(3.0)
            self.close_connection = True
            return
        if fault == "delay":
            time.sleep(0.05)
        if fault in ("500", "503", "403"):
            code = {"500": b"InternalError", "503": b"SlowDown"}.get(fault)
            self.answer(int(fault), {}, REFUSED if code is None else SLOW_DOWN % code)
            return
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        try:
            behind.request(self.command, self.path, body, dict(self.headers))
            found = behind.getresponse()
            headers = {k: v for k, v in found.getheaders() if k.lower() not in HOP}
            payload = found.read()
            if self.command == "HEAD":
                headers["Content-Length"] = found.getheader("Content-Length") or "0"
            self.answer(found.status, headers, payload, cut=fault == "cut")
        finally:
            behind.close()

    def answer(
        self, status: int, headers: dict[str, str], payload: bytes, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload[: len(payload) // 2] if cut else payload)
        if cut:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def proxy(port: int, seed: int = 0) -> Iterator[Proxy]:
    """A proxy before `port`, for as long as it is used."""
    server = Proxy(port, seed)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
