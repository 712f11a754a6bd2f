"""A web server for one person on this computer, the base of all pages that need one.

It listens on 127.0.0.1 only, under a path that cannot be guessed, and refuses requests addressed
to another host. A web page of somebody else, open in the same browser, can therefore neither read
nor send anything here, by DNS rebinding included.
"""

from __future__ import annotations

import hmac
import http.server
import json
import secrets
import sys
from http import HTTPStatus
from typing import Any, Callable, List, Tuple, cast
from urllib.parse import unquote

from ofrl_robot.errors import ConfigError, OfrlError

JSON, HTML = "application/json", "text/html; charset=utf-8"
MAX_REQUEST_BYTES = 4096  # of a request's body
STALLED_SECONDS = 30.0  # a connection that sends nothing for so long is closed
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),  # the path is a secret
    ("X-Frame-Options", "DENY"),
    (
        "Content-Security-Policy",
        "default-src 'none'; img-src 'self'; connect-src 'self'; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    ),
)

Answer = Tuple[bytes, str]
"""Content and MIME type."""


class Refused(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        self.status = status
        super().__init__(text)


def bad_request(text: str) -> Refused:
    """Return the refusal of a request that makes no sense."""
    return Refused(HTTPStatus.BAD_REQUEST, text)


def not_found(text: str = "nothing here") -> Refused:
    """Return the refusal of a path that leads nowhere."""
    return Refused(HTTPStatus.NOT_FOUND, text)


def to_json(value: Any) -> Answer:
    """Return a value as a JSON answer. Raises Refused for NaN and infinity."""
    try:
        return json.dumps(value, allow_nan=False).encode(), JSON
    except ValueError as error:
        raise Refused(HTTPStatus.CONFLICT, "a number in the data is not finite") from error


class PageServer(http.server.ThreadingHTTPServer):
    """Base of the servers; a subclass answers ``get`` and ``post``.

    Call ``serve_forever``; ``shutdown`` or Ctrl-C ends it. Requests are answered in threads of
    their own, so ``get`` and ``post`` must be safe to call at the same time.

    Args:
        port: 0 for any free one.

    Attributes:
        url: address of the page, the secret path included.
        post_paths: paths below the secret one that take POST requests.

    Raises:
        ConfigError: the port is taken.
    """

    daemon_threads = True
    post_paths: Tuple[List[str], ...] = ()

    def __init__(self, port: int = 0) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"port {port} cannot be used ({reason})", "use --port 0 for a free one"
            ) from error
        self.root = f"/{secrets.token_urlsafe(18)}/"
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.url = f"http://127.0.0.1:{self.server_port}{self.root}"

    def get(self, parts: List[str]) -> Answer:
        """Answer a GET request.

        Args:
            parts: path below the secret one, split at slashes and unquoted; ``[""]`` is the page.

        Raises:
            Refused: with the status to answer.
            OfrlError: answered as a conflict.
        """
        raise NotImplementedError

    def post(self, parts: List[str], body: Any) -> Answer:
        """Answer a POST request to one of ``post_paths``; ``body`` is its parsed JSON."""
        raise NotImplementedError

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a fault of ours, but not that of a closed connection."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection. Errors are answered as JSON."""

    protocol_version = "HTTP/1.1"
    timeout = STALLED_SECONDS

    @property
    def _pages(self) -> PageServer:
        return cast(PageServer, self.server)

    def do_GET(self) -> None:
        self._answer(lambda: self._pages.get(self._route()))

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, handle: Callable[[], Answer]) -> None:
        try:
            content, kind = handle()
        except Refused as refused:
            self._error(refused.status, str(refused))
        except OfrlError as error:
            self._error(HTTPStatus.CONFLICT, str(error))
        else:
            self._reply(HTTPStatus.OK, content, kind)

    def _post(self) -> Answer:
        # What is left unread of the body must not be taken for the next request.
        self.close_connection = True
        parts = self._route()
        if parts not in self._pages.post_paths:
            raise not_found()
        if self.headers.get_content_type() != JSON:  # a form of another page cannot send this
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {JSON}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
        if len(length) > 9 or int(length) > MAX_REQUEST_BYTES:
            text = f"more than {MAX_REQUEST_BYTES} bytes"
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        try:
            body = json.loads(self.rfile.read(int(length)).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise bad_request(f"not JSON ({type(error).__name__})") from error
        return self._pages.post(parts, body)

    def _route(self) -> List[str]:
        """Return the parts of the path below the secret one. Raises Refused for any other."""
        if self.headers.get("Host") not in self._pages.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, "not for this host")
        root = self._pages.root
        given = self.path[: len(root)].encode("utf-8", "replace")
        if not hmac.compare_digest(given, root.encode()):
            raise not_found("nothing here; use the address that was printed")
        return [unquote(part) for part in self.path[len(root) :].split("/")]

    def _error(self, status: int, text: str) -> None:
        content, kind = to_json({"error": text})
        self._reply(status, content, kind)

    def _reply(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in _HEADERS:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: Any = None, explain: Any = None) -> None:
        """Answer what the standard library refuses: other methods, malformed requests."""
        self.close_connection = True
        self._error(code, message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal is for errors."""
