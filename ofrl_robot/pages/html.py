"""What all HTML pages share: templates, pictures inside the page, written whole or not at all."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from typing import Iterable

import jinja2

from ofrl_robot.errors import ConfigError

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def template(name: str) -> jinja2.Template:
    """A file of ``templates/``; everything put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(_TEMPLATES)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template(name)


def data_uri(data: bytes, kind: str) -> str:
    return "data:{};base64,{}".format(kind, base64.b64encode(data).decode("ascii"))


def write_page(path: Path, pieces: Iterable[str], what: str) -> None:
    """Write a page piece by piece; a reader sees the old page or the whole new one.

    Args:
        what: name of the page for the message ("report").

    Raises ConfigError when ``path`` cannot be written; what ``pieces`` raises leaves no trace.
    """
    if path.is_dir():
        raise ConfigError(
            "is a folder", "name a file, such as {}".format(path / (what + ".html")), path
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".partial", path.name + ".", str(path.parent))
        try:
            with open(handle, "w", encoding="utf-8") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the page from a web server
            os.replace(temporary, str(path))
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot write the {what} ({error.strerror})", "choose another --out", path
        ) from error
