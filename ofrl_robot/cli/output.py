"""Print safely: what cannot be written is an error, and what files contain is escaped."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Iterator, TextIO

from ofrl_robot.errors import OutputError

PIPE_CLOSED = 141  # exit code when the reader of a pipe has gone, as shells have it: 128 + SIGPIPE


class PipeClosed(Exception):
    """The reader of the standard output has gone."""


def printable(text: str, keep: str = "\n\t") -> str:
    """Return ``text`` with every character escaped that is neither printable nor in ``keep``.

    A name or attribute of somebody else's file may hold escape sequences, which would move the
    cursor or change the title of the terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def complain(message: str) -> None:
    """Print ``ofrl: message`` on one line of stderr."""
    try:
        print(f"ofrl: {printable(message, keep='')}", file=sys.stderr, flush=True)
    except OSError:  # nothing can be said; Python would try again at exit, and exit with 120
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Send what is still buffered in ``stream``, and all that follows, nowhere."""
    with contextlib.suppress(OSError):  # a stream of a test has no file descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _CheckedOutput:
    """A text stream whose failures end the verb: OutputError, or PipeClosed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed = False

    def write(self, text: str) -> int:
        with self._checked():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._checked():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            self.failed = True
            raise PipeClosed from error
        except OSError as error:
            self.failed = True
            raise OutputError(
                f"standard output cannot be written ({error.strerror or error})",
                "free space or redirect it to another file",
            ) from error


class _EscapedOutput:
    """A text stream that escapes what is printed, but not the progress bars of rich.

    Rich writes to ``rich_proxied_file``. While a bar is shown on a terminal, rich puts a stream of
    its own in the place of this one and writes its escape sequences through here; what is printed
    then, it filters itself.
    """

    def __init__(self, output: Any) -> None:
        self.rich_proxied_file = output

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable(text) if sys.stdout is self else text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Raise an error for output that cannot be written, at the latest when the block ends.

    Raises:
        OutputError: standard output is closed or cannot be written.
        PipeClosed: its reader has gone.
    """
    before = sys.stdout
    if before is None:  # `>&-`; the next file that is opened would get its number
        raise OutputError("standard output is closed", "redirect it, for example to /dev/null")
    output = _CheckedOutput(before)
    sys.stdout = output  # type: ignore[assignment]
    try:
        try:
            yield
        finally:
            if not output.failed:
                output.flush()
    finally:
        sys.stdout = before
        if output.failed:  # or Python tries once more at exit, and complains in its own words
            _discard(before)


@contextlib.contextmanager
def escaped_output() -> Iterator[None]:
    """Escape everything that is printed inside the block (see :func:`printable`)."""
    before = sys.stdout
    sys.stdout = _EscapedOutput(before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = before
