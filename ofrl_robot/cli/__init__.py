"""The ``ofrl`` command.

This module imports nothing that takes time, so that Ctrl-C is quiet from the first moment on; the
verbs are in :mod:`ofrl_robot.cli.commands`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Any, Iterator, Optional, Sequence

from ofrl_robot import __version__

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it: 128 + SIGINT


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line ``argv`` (default: that of the process).

    Returns:
        Exit code: 0; 2 for anything that the user can correct; 130 after Ctrl-C; 141 when the
        reader of the output has gone (``ofrl data info DATA | head``).
    """
    _yield_while_waiting()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        print(f"ofrl_robot {__version__}")
        return 0
    try:
        with _quiet_interrupt():
            from ofrl_robot.cli import commands
        return commands.run(words)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("ofrl: interrupted", file=sys.stderr)
        return INTERRUPTED


def _yield_while_waiting() -> None:
    """Have OpenMP threads that wait for one another soon give their core away.

    By default GNU's OpenMP, which torch uses, spins for milliseconds: of two trainings on two cores
    each spins while the thread that it waits for has no core. Measured, in steps/s: alone 23.7 by
    default, 24.1 with 10000 turns, 14.9 without spinning; two at once 0.5, 5.6 and 9.8 each. The
    library reads this when torch loads it; what the user has set is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


@contextlib.contextmanager
def _quiet_interrupt() -> Iterator[None]:
    """End the process at once on Ctrl-C.

    A KeyboardInterrupt in the middle of an import may be printed and dropped by the import system;
    nothing has been written yet, so nothing needs to be closed.
    """

    def end(number: int, frame: Any) -> None:
        os.write(2, b"ofrl: interrupted\n")
        os._exit(INTERRUPTED)

    # only the main thread may set handlers; whoever ignores Ctrl-C (nohup) goes on ignoring it
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
