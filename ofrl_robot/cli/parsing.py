"""How words become a verb, wherever words are parsed."""

from __future__ import annotations

import contextlib
import io
from typing import Any, Sequence

import tyro

from ofrl_robot.errors import ConfigError


def parse(form: Any, words: Sequence[str], description: str) -> Any:
    """An instance of ``form`` (a dataclass, or a union of subcommands), settings without prefixes.

    Raises SystemExit where it is not to be had, once that was said; ConfigError for values that
    were read and are refused.
    """
    return tyro.cli(
        form,
        prog="ofrl",
        description=description,
        args=words,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def parse_quietly(form: Any, words: Sequence[str]) -> Any:
    """As :func:`parse`, but what is wrong is one line: always a ConfigError."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parse(form, words, "")
    except SystemExit as error:
        raise ConfigError(_first_paragraph(said.getvalue())) from error


def _first_paragraph(message: str) -> str:
    """Of tyro's, framed or not: the text below the title, above the next rule."""
    lines = []
    for line in message.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if set(text) - set("─-"):
            lines.append(text)
        elif lines:
            break
    return " ".join(lines)
