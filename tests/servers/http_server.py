"""A loopback HTTP server that behaves badly on demand, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Page:
    """What lies behind a path, and how it is sent.

    Attributes:
        content: The bytes.
        cuts: Where the connection is dropped, one answer each; then answers are whole.
        cut_always: Every answer is dropped after so many bytes; None for never.
        status: Answers before the first good one, with that status.
        forever: A status that is always answered; None for never.
        ranges: Whether Range is understood.
        etag: Whether a strong ETag is sent.
        length: Content-Length that is claimed; None for the true one, -1 for none.
        chunked: Sent in chunks, without a length.
        shift: Answers to Range begin so many bytes too late.
        redirect: Address that is answered instead.
        wants: Header that must be there, with its value; else 401.
    """

    content: bytes = b""
    cuts: list[int] = field(default_factory=list)
    cut_always: int | None = None
    status: list[int] = field(default_factory=list)
    forever: int | None = None
    ranges: bool = True
    etag: bool = True
    length: int | None = None
    chunked: bool = False
    shift: int = 0
    redirect: str = ""
    wants: tuple[str, str] | None = None


class BadServer:
    """The server; `pages` may be changed while it runs."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.posted: list[bytes] = []
        self.sent_bytes = 0
        self.together = self.most_together = 0
        self.lock = threading.Lock()
        server = self

        class Handler(_Handler):
            owner = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: BadServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.owner
        with server.lock:
            server.asked.append((self.path, dict(self.headers)))
            server.together += 1
            server.most_together = max(server.most_together, server.together)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._answer(server, server.pages.get(self.path.partition("?")[0]) or server.pages.get(self.path))
        finally:
            with server.lock:
                server.together -= 1

    def do_POST(self) -> None:
        self.owner.posted.append(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self.do_GET()

    def _answer(self, server: BadServer, page: Page | None) -> None:
        if page is None:
            return self._short(404)
        if page.wants and self.headers.get(page.wants[0]) != page.wants[1]:
            return self._short(401)
        if page.forever or page.status:
            return self._short(page.forever or page.status.pop(0))
        if page.redirect:
            return self._short(302, {"Location": page.redirect})
        tag = f'"{hashlib.sha256(page.content).hexdigest()[:8]}"'
        start = self._start(page, tag)
        total = len(page.content)
        if start >= total > 0:
            return self._short(416)
        self.send_response(206 if start else 200)
        if page.etag:
            self.send_header("ETag", tag)
        if start:
            self.send_header("Content-Range", f"bytes {start + page.shift}-{total - 1}/{total}")
        body = page.content[start + page.shift if start else 0 :]
        length = len(body) if page.length is None else page.length
        if page.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif length >= 0:
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        cut = page.cut_always if page.cut_always is not None else page.cuts.pop(0) if page.cuts else None
        self._send(server, body if cut is None else body[:cut], page.chunked, whole=cut is None)
        if cut is not None or page.length is not None:
            self.close_connection = True

    def _start(self, page: Page, tag: str) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if not wanted or not page.ranges or (condition and condition != tag):
            return 0
        return int(wanted[1])

    def _send(self, server: BadServer, body: bytes, chunked: bool, whole: bool) -> None:
        for begin in range(0, len(body), 65536):
            piece = body[begin : begin + 65536]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            with server.lock:
                server.sent_bytes += len(piece)
        if chunked and whole:
            self.wfile.write(b"0\r\n\r\n")

    def _short(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def bad_server():
    server = BadServer()
    yield server
    server.close()
