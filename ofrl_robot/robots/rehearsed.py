"""Remember which code was rehearsed on which arm, so that a deployment can say when it was not."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict, List

from ofrl_robot.files import make_folder, write_whole

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOMS = ("control", "robots", "cameras")  # and the nodes: what stands between actor and arm


def code_fingerprint() -> str:
    """Return a fingerprint of the code between an actor and an arm: 12 hex digits."""
    digest = hashlib.sha256()
    nodes = _PACKAGE.parent / "ros"  # beside the package in a clone; absent once installed
    folders = [*(_PACKAGE / room for room in _ROOMS), nodes]
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            if "rehears" not in str(path.relative_to(folder)):  # the rehearsal itself
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def record_path(arm: str) -> Path:
    """Return the file in which the newest rehearsal of an arm is remembered."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "ofrl_robot" / f"rehearsal-{arm}.json"


def records() -> List[Path]:
    """Return the files of all rehearsals on this computer."""
    return sorted(record_path("any").parent.glob("rehearsal-*.json"))


def remember(arm: str, data: Dict[str, Any]) -> Path:
    """Remember a rehearsal (``pages.rehearsal.report``) on this computer.

    Raises:
        OutputError: it cannot be written.
    """
    path = record_path(arm)
    make_folder(path.parent)
    write_whole(path, f"{json.dumps(data, indent=2)}\n")
    return path


def complaint(arm: str) -> str:
    """Return why the rehearsal of an arm does not count; empty when it does."""
    try:
        data = json.loads(record_path(arm).read_text())
        code, kept, total = data["code"], int(data["kept"]), len(data["results"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"the faults of {arm} were never rehearsed on this computer"
    if code != code_fingerprint():
        return f"the code has changed since the faults of {arm} were rehearsed ({data['when']})"
    if kept < total:
        return f"{total - kept} promises were broken when the faults of {arm} were rehearsed"
    return ""
