"""A web server on the loopback interface that misbehaves as real ones do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves ``content`` at any path.

    Attributes:
        url: the address of a file.
        requests: the Range header of each request, or None.
        breaks: for the coming requests, after how many bytes of the body the connection ends; then it does not.
        etag: None for a server without tags and ranges.
        status: of every answer, if not 200.
        says: the Content-Length, if it is not that of the body; None for none.
        redirect: the address to which every request is redirected.
    """

    def __init__(self, content: bytes):
        self.content, self.requests, self.breaks = content, [], []
        self.etag: str | None = '"1"'
        self.status, self.says, self.redirect = 200, len(content), None

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        if self.redirect:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.end_headers()
            return
        start, length = 0, self.says
        partial = asked and self.etag and handler.headers.get("If-Range") == self.etag and self.status == 200
        if partial:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            length = (len(self.content) if self.says is None else self.says) - start
        handler.send_response(206 if partial else self.status)
        if partial:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        body = self.content[start:]
        with contextlib.suppress(OSError):
            handler.wfile.write(body[: self.breaks.pop(0)] if self.breaks else body)
        handler.close_connection = True


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """Run a server of ``content``."""
    server = Server(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self)

        def log_message(self, *_):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.url = f"http://127.0.0.1:{listener.server_port}/some/file.pt"
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
