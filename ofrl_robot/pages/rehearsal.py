"""The page of a rehearsal: faults, promises, measured times."""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
import os
import platform
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ofrl_robot import __version__
from ofrl_robot.files import write_whole
from ofrl_robot.pages.html import template, write_page

PAGE, DATA = "rehearsal.html", "rehearsal.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one rehearsed fault.

    Attributes:
        fault, group, promise: what was played and what is promised about it.
        bound: seconds within which, or None.
        kept: whether the promise was kept.
        seconds: measured, or None.
        seen: what was seen.
    """

    fault: str
    group: str
    promise: str
    bound: Optional[float]
    kept: bool
    seconds: Optional[float]
    seen: str

    def line(self) -> str:
        """Return the result in one line."""
        mark = "kept  " if self.kept else "BROKEN"
        times = f"{_seconds(self.seconds)} of {_seconds(self.bound)}"
        return f"{mark} {self.fault:34s} {times:>18s}  {self.seen}"


def report(arm: str, rate: int, code: str, results: Sequence[Result], when: str) -> Dict[str, Any]:
    """Return a rehearsal as JSON values.

    Args:
        arm: which arm was rehearsed.
        rate: ticks per second.
        code: fingerprint of the code (``rehearsal.code_fingerprint``).
        results: one per fault.
        when: ISO 8601, UTC.
    """
    return {
        "arm": arm,
        "rate": rate,
        "code": code,
        "when": when,
        "version": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "kept": sum(r.kept for r in results),
        "results": [dataclasses.asdict(r) for r in results],
    }


def write_rehearsal(folder: Path, data: Dict[str, Any]) -> Path:
    """Write page and data into a folder; return the page.

    Raises:
        OutputError: it cannot be written.
    """
    results = [Result(**values) for values in data["results"]]
    by_group = itertools.groupby(results, operator.attrgetter("group"))
    groups = [(name, list(rows)) for name, rows in by_group]
    text = template("rehearsal.html.j2").render(data=data, groups=groups, seconds=_seconds)
    page = folder / PAGE
    write_page(page, [text], "rehearsal")
    write_whole(folder / DATA, f"{json.dumps(data, indent=2)}\n")
    return page


def broken(results: List[Result]) -> List[str]:
    """Return the faults whose promise was not kept."""
    return [r.fault for r in results if not r.kept]


def _seconds(value: Optional[float]) -> str:
    return "" if value is None else f"{value:.3g} s"
