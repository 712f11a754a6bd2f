"""The one exception family of the package.

Every message says *what* is wrong, *where*, and *what to do*, on one line. The command line
turns any :class:`OfrlError` into that line on stderr and exit code 2 (see ``cli.main``).
"""

from __future__ import annotations


class OfrlError(Exception):
    """Base of all errors that a user can cause and correct.

    Args:
        what: what is wrong, with the offending value.
        fix: what to do about it (imperative), or empty when ``what`` already says so.
        where: file, field or topic concerned, or empty.
    """

    def __init__(self, what: str, fix: str = "", where: object = "") -> None:
        self.what, self.fix, self.where = what, fix, str(where)
        text = f"{where}: {what}" if self.where else what
        super().__init__(printable(f"{text}; {fix}" if fix else text))


class ConfigError(OfrlError):
    """A setting, name or flag that cannot be used."""


class SpecMismatchError(OfrlError):
    """Two parts disagree on the action or observation specification."""


class DatasetError(OfrlError):
    """An episode file or dataset folder that cannot be read, written or trained on."""


class HostilePickleError(DatasetError):
    """A pickle that names anything but numpy arrays and plain containers."""


class OutputError(OfrlError):
    """A file or folder that cannot be written, or must not be overwritten."""


class CheckpointError(OfrlError):
    """A checkpoint or run folder that cannot be used."""


class TrainingError(OfrlError):
    """A training run that cannot go on: it diverged, or its folder cannot be written."""


class RobotError(OfrlError):
    """A robot or simulator that cannot be commanded."""


class CameraError(OfrlError):
    """A camera that cannot be opened or read."""


class CameraStoppedError(CameraError):
    """A camera that gave frames and gives no more; ``what`` names it."""


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped, so that a terminal does not obey them.

    For text that comes from files: an ESC in it could move the cursor or set colours, and a
    newline could fake another line. Writes ``\\x1b`` for ESC.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
