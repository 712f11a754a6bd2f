"""Command line and JSON file of the benchmarks."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

PEERS_PYTHON = Path(__file__).resolve().parent.parent / ".bench-venv" / "bin" / "python"


class Command:
    """The command line of one benchmark.

    Args:
        description: text of ``--help``.
        serve_words: words after ``--serve``, by which a benchmark starts itself as a contestant.
    """

    def __init__(self, description: Optional[str], serve_words: int) -> None:
        self.parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.number: Callable[..., Any] = functools.partial(
            self.parser.add_argument, type=int, metavar="N"
        )
        self.parser.add_argument("--json", metavar="FILE", help="write the results to it")
        self.parser.add_argument("--serve", nargs=serve_words, help=argparse.SUPPRESS)
        self._python = ""

    def add_interpreter(self, flag: str, package: str, variable: str = "") -> None:
        """Add the flag that names the interpreter of another package.

        Args:
            flag: e.g. ``--peers-python``.
            package: what that interpreter must be able to import.
            variable: environment variable with its path; by default the interpreter that
                bench/peers.sh made is taken, if there is one.
        """
        self._python = flag.strip("-").replace("-", "_")
        if variable:
            default = os.environ.get(variable) or sys.executable
            text = f"${variable}, or this one"
        else:
            default = str(PEERS_PYTHON) if PEERS_PYTHON.is_file() else sys.executable
            text = "that of bench/peers.sh, or this one"
        help_text = f"interpreter that can import {package} (default: {text})"
        self.parser.add_argument(flag, metavar="PATH", default=default, help=help_text)

    def parse(self, positive: Sequence[str]) -> argparse.Namespace:
        """Parse the command line of the process.

        Args:
            positive: names of numbers, or lists of numbers, that must be 1 or more.

        Raises:
            SystemExit: a number is too small or the interpreter does not exist (exit code 2).
        """
        arguments = self.parser.parse_args()
        if arguments.serve:
            return arguments
        for name in positive:
            value = getattr(arguments, name)
            if min(value if isinstance(value, list) else [value]) < 1:
                self.parser.error(f"--{name.replace('_', '-')} must be 1 or more")
        python = getattr(arguments, self._python)
        if shutil.which(python) is None:
            self.parser.error(f"no such interpreter: {python}")
        return arguments


def cpu_name() -> str:
    """Return the name of the processor, as far as Python knows it."""
    return platform.processor() or platform.machine()


def write_json(path: Optional[str], values: Dict[str, Any]) -> None:
    """Write ``values`` to the file of ``--json``; without that flag do nothing."""
    if path:
        Path(path).write_text(f"{json.dumps(values, indent=2)}\n")
