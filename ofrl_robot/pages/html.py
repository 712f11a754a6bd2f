"""HTML pages in one file: templates, pictures inside the page, and writing a page whole."""

from __future__ import annotations

import base64
import contextlib
import os
from pathlib import Path
from typing import Iterable

import jinja2

from ofrl_robot import files
from ofrl_robot.errors import OutputError

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def template(name: str) -> jinja2.Template:
    """Return a file of ``templates/``; every value put into it is escaped."""
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
    """Return a picture of MIME type ``kind`` as an address that holds the picture itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def write_page(path: Path, pieces: Iterable[str], what: str) -> None:
    """Write a page piece by piece; a reader sees the old page or the whole new one.

    What ``pieces`` raises leaves the old page as it was.

    Args:
        what: name of the page for the message ("report").

    Raises:
        OutputError: ``path`` is a folder or cannot be written.
    """
    if path.is_dir():
        raise OutputError("is a folder", f"name a file, such as {path / what}.html", path)
    files.make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.writelines(pieces)
            files.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # gone already when all went well
                temporary.unlink()
    except OSError as error:
        raise files.output_error(error, path) from error
