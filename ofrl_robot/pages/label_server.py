"""A page in the operator's browser to label episodes; every click is on disk before it answers.

The server is for one person on this computer: it listens on 127.0.0.1 only, under a path that
nobody can guess, and takes no request meant for another host, so no other web page can reach it.
"""

from __future__ import annotations

import hmac
import http.server
import json
import secrets
import sys
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple
from urllib.parse import unquote

import numpy as np

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.datasets.labels import LabelChange, apply
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_episode, read_frames
from ofrl_robot.data.episodes.schema import LABEL_NAMES, SUCCESS
from ofrl_robot.errors import ConfigError, OfrlError
from ofrl_robot.pages.film_strip import encode, side_by_side
from ofrl_robot.pages.html import template

SOURCE = "browser"  # label_source and reward_source of what is said here
FRAME_HEIGHT = 288  # pixels, about; small frames are enlarged by a whole factor
_MOST_BYTES = 4096  # of a request's body
_STALLED_S = 30.0  # a connection that says nothing for so long is closed
_JSON, _HTML = "application/json", "text/html; charset=utf-8"
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


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        self.status = status
        super().__init__(text)


class LabelServer(http.server.ThreadingHTTPServer):
    """Serves one dataset folder; ``serve_forever`` until ``shutdown`` or Ctrl-C.

    Args:
        folder: the dataset.
        port: 0 for any free one.

    Attributes:
        url: address of the page, the secret path included.

    Raises DatasetError for a folder without readable episodes, ConfigError when the port is
    taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        dataset = open_dataset(folder)
        self.folder = folder
        self.paths = {path.stem: path for path in dataset.paths}
        self.episodes = {
            path.stem: {"name": path.stem, "label": LABEL_NAMES[meta.success],
                        "source": meta.label_source, "steps": steps}
            for path, meta, steps in zip(dataset.paths, dataset.metas, dataset.lengths)
        }  # fmt: skip
        self.cameras = [camera.name for camera in dataset.observation_spec.cameras]
        self._saving = threading.Lock()
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

    def episode(self, name: str) -> Dict[str, Any]:
        """What the page shows of one episode, read from disk now."""
        episode = read_episode(self._path(name), cameras=())
        meta = episode.meta
        self.episodes[name] = {
            "name": name,
            "label": LABEL_NAMES[meta.success],
            "source": meta.label_source,
            "steps": len(episode),
        }
        return {
            **self.episodes[name],
            "task": meta.task,
            "seed": meta.seed,
            "actor": meta.actor,
            "abort": meta.abort_reason,
            "rate": meta.control_rate_hz,
            "rewarded": np.flatnonzero(episode.rewards > 0).tolist(),
        }

    def frame(self, name: str, index: str) -> Tuple[bytes, str]:
        """One tick as a picture, all cameras side by side, and its MIME type."""
        steps = self.episodes[self._path(name).stem]["steps"]
        if not (index.isdigit() and len(index) < 10 and int(index) <= steps):
            raise _Refused(HTTPStatus.NOT_FOUND, f"no frame {index!r:.40} in {name}")
        frames = [read_frames(self.paths[name], c, [int(index)])[0] for c in self.cameras]
        picture, kind = side_by_side(frames, FRAME_HEIGHT)
        return encode(picture, kind), kind

    def save(self, body: Any) -> Dict[str, Any]:
        """Apply one click and return the episode as it is on disk afterwards.

        Args:
            body: ``{"episode": name, "label": "success" | "failure" | "unknown"}``, or
                ``{"episode": name, "reward_from": step}``, which also says success: reward 0
                before that step (0..T-1) and 1 from it on. Step T: no reward, label untouched.

        Raises DatasetError when the disk refuses or a recorder is at work in the folder.
        """
        fields = set(body) if isinstance(body, dict) else set()
        if fields not in ({"episode", "label"}, {"episode", "reward_from"}):
            raise _bad('send {"episode": name} and either "label" or "reward_from"')
        name = body["episode"]
        if not isinstance(name, str):
            raise _bad("episode is not a name")
        path = self._path(name)
        if "label" in body:
            labels = [k for k, word in LABEL_NAMES.items() if word == body["label"]]
            if not labels:
                raise _bad(f"label is not one of {', '.join(LABEL_NAMES.values())}")
            verdict = LabelChange(labels[0])
        else:
            first, steps = body["reward_from"], self.episodes[name]["steps"]
            if type(first) is not int or not 0 <= first <= steps:  # True is no step
                raise _bad(f"reward_from is not a step from 0 to {steps}")
            rewards = {step: float(step >= first) for step in range(steps)}
            verdict = LabelChange(SUCCESS if first < steps else None, rewards)
        with self._saving, one_writer(self.folder):
            apply(self.folder, {path.name: verdict}, SOURCE)
            return self.episode(name)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # the browser went away: no error
            super().handle_error(request, client_address)

    def _path(self, name: str) -> Path:
        if name not in self.paths:
            raise _Refused(HTTPStatus.NOT_FOUND, f"no episode {name!r:.60}")
        return self.paths[name]


def _bad(text: str) -> _Refused:
    return _Refused(HTTPStatus.BAD_REQUEST, text)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection. Everything but the page and the frames is JSON, errors too."""

    server: LabelServer
    protocol_version = "HTTP/1.1"
    timeout = _STALLED_S

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, handle: Callable[[], Tuple[bytes, str]]) -> None:
        try:
            content, kind = handle()
        except _Refused as refused:
            self._error(refused.status, str(refused))
        except OfrlError as error:
            self._error(HTTPStatus.CONFLICT, str(error))
        else:
            self._reply(HTTPStatus.OK, content, kind)

    def _get(self) -> Tuple[bytes, str]:
        parts = self._route()
        if parts == [""]:
            page = template("label.html.j2").render(name=self.server.folder.resolve().name)
            return page.encode(), _HTML
        if parts == ["episodes"]:
            return _json(list(self.server.episodes.values())), _JSON
        if len(parts) == 2 and parts[0] == "episodes":
            return _json(self.server.episode(parts[1])), _JSON
        if len(parts) == 3 and parts[0] == "frames":
            return self.server.frame(parts[1], parts[2])
        raise _Refused(HTTPStatus.NOT_FOUND, "nothing here")

    def _post(self) -> Tuple[bytes, str]:
        self.close_connection = True  # whatever of the body is not read is never a request
        if self._route() != ["labels"]:
            raise _Refused(HTTPStatus.NOT_FOUND, "nothing here")
        if self.headers.get_content_type() != _JSON:  # what a form of another page cannot send
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {_JSON}")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
        if len(length) > 9 or int(length) > _MOST_BYTES:
            text = f"more than {_MOST_BYTES} bytes"
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        try:
            body = json.loads(self.rfile.read(int(length)).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _bad(f"not JSON ({type(error).__name__})") from error
        return _json(self.server.save(body)), _JSON

    def _route(self) -> List[str]:
        """Parts of the path below the secret one."""
        if self.headers.get("Host") not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN, "not for this host")
        root = self.server.root
        given = self.path[: len(root)].encode("utf-8", "replace")
        if not hmac.compare_digest(given, root.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND, "nothing here; use the address that was printed")
        return [unquote(part) for part in self.path[len(root) :].split("/")]

    def _error(self, status: int, text: str) -> None:
        self._reply(status, _json({"error": text}), _JSON)

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
        """What the standard library refuses by itself: other methods, malformed requests."""
        self.close_connection = True
        self._error(code, message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for errors."""


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()
