"""Let the nodes of a session say how it went, to whoever started them.

roslaunch returns 0 whatever happens to its nodes. ``ofrl launch`` names a file in the environment;
nodes append lines of JSON to it, and ``ofrl launch`` reads them when all have ended.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, List

FILE_VARIABLE = "OFRL_SESSION_LOG"


@dataclasses.dataclass
class Outcome:
    """What the nodes said.

    Attributes:
        asked: episodes that were asked for; 0 when the recorder did not start.
        saved: episodes that are on disk and not aborted.
        aborted: episodes that are on disk and ended early.
        ended: whether the recorder came to its end, and was not killed.
        errors: of any node, in order: the first one is the cause.
    """

    asked: int = 0
    saved: int = 0
    aborted: int = 0
    ended: bool = False
    errors: List[str] = dataclasses.field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for was saved."""
        return self.ended and 0 < self.asked <= self.saved

    def line(self) -> str:
        """Return what is missing and why, in one line."""
        if not self.asked:
            return self.errors[0] if self.errors else "the session ended before it began"
        text = f"{self.saved} of {self.asked} episodes saved"
        if self.aborted:
            text += f", {self.aborted} more aborted"
        if self.errors:
            return f"{text}: {self.errors[0]}"
        return text if self.ended else f"{text}: the recorder was killed"


def note(**values: Any) -> bool:
    """Append fields of :class:`Outcome` for whoever started this process; ``error`` adds one.

    Returns:
        Whether somebody will read them.
    """
    file = os.environ.get(FILE_VARIABLE, "")
    if not file:
        return False
    try:
        # no O_CREAT: the reader made the file, and removes it when it does not read any more
        number = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(number, f"{json.dumps(values)}\n".encode())  # at once: other nodes append too
        finally:
            os.close(number)
    except OSError:
        return False
    return True


def read(file: Path) -> Outcome:
    """Return what was noted in ``file``; a line that a killed node left unfinished is skipped."""
    outcome = Outcome()
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if "error" in values:
            outcome.errors.append(str(values.pop("error")))
        outcome = dataclasses.replace(outcome, **values)
    return outcome
