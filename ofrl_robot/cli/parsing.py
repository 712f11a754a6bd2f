"""Parse command line words into a verb and its settings."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any, NoReturn, Sequence

import tyro

from ofrl_robot.errors import ConfigError


class UsageError(ConfigError):
    """Words that the parser refuses.

    Attributes:
        printed: everything that the parser printed about them.
    """

    def __init__(self, printed: str) -> None:
        super().__init__(_first_paragraph(printed))
        self.printed = printed


def parse(form: Any, words: Sequence[str], description: str) -> Any:
    """Parse words into an instance of ``form``; settings have no prefixes.

    Args:
        form: a dataclass, or a union of subcommands.
        words: the words after ``ofrl``.
        description: text at the top of ``ofrl --help``.

    Raises:
        SystemExit: the parser has printed help (exit code 0) or what is wrong (2).
        ConfigError: a value could be read but is refused.
    """
    return tyro.cli(
        form,
        prog="ofrl",
        description=description,
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def parse_quietly(form: Any, words: Sequence[str]) -> Any:
    """Parse as :func:`parse` does, but print nothing.

    Raises:
        UsageError: the parser refuses the words.
        ConfigError: a value could be read but is refused.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            return parse(form, words, "")
    except SystemExit as error:
        raise UsageError(printed.getvalue()) from error


def print_usage_error(error: UsageError) -> NoReturn:
    """Print what the parser said and exit with code 2."""
    sys.stderr.write(error.printed)
    raise SystemExit(2) from error


def _first_paragraph(message: str) -> str:
    """Return the first paragraph of a message of tyro, without the frame around it."""
    lines = []
    for line in message.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if set(text) - set("─-"):
            lines.append(text)
        elif lines:
            break
    return " ".join(lines)
