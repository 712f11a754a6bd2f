"""How faithfully the embedded simulator repeats recorded roboverse episodes, and the report."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from ofrl_robot.data.convert.roboverse import task_of
from ofrl_robot.errors import ConfigError, DatasetError, OfrlError
from ofrl_robot.evaluation.fidelity.recordings import load_trajectories, parse_recording
from ofrl_robot.evaluation.fidelity.replay import Replay, replay
from ofrl_robot.sim.simulation import EmbeddedSimulation
from ofrl_robot.sim.tasks import find

LINE_WIDTH = 79
HEADER = (
    "               free    error of free steps, mm     drawer open, %      success\n"
    "episode steps steps    mean  median     p95       recorded  here  recorded here"
)


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """All episodes of one file, by their number in it.

    Attributes:
        file, env: what was replayed, on which task.
        replays: those that were replayed, in order.
        skipped: why the others were not.
    """

    file: Path
    env: str
    replays: Dict[int, Replay]
    skipped: Dict[int, str]

    def to_dict(self) -> Dict[str, Any]:
        """What the report file holds.

        ``mean_mm``, ``median_mm``, ``p95_mm`` are over the steps before first contact of all
        episodes together, ``all_median_mm``, ``all_p95_mm`` over all steps. An agreement is
        the fraction of episodes that end alike (``_any``: reach success at any step alike).
        What there is nothing to tell of is None.
        """
        pairs = [(r.recorded, r.replayed) for r in self.replays.values()]
        drawers = [
            (a, b) for a, b in pairs if a.drawer_opened is not None and b.drawer_opened is not None
        ]
        openings = [
            abs(a.drawer_opening - b.drawer_opening)
            for a, b in pairs
            if a.drawer_opening is not None and b.drawer_opening is not None
        ]
        return {
            "file": self.file.name,
            "env": self.env,
            **_errors(list(self.replays.values())),
            "success_agreement": _mean([a.success == b.success for a, b in pairs]),
            "success_agreement_any": _mean([a.success_any == b.success_any for a, b in pairs]),
            "drawer_agreement": _mean([a.drawer_opened == b.drawer_opened for a, b in drawers]),
            "drawer_opening_error_median": _percentile(openings, 50),
            "episodes": [
                {
                    "episode": number,
                    **_errors([one]),
                    "recorded": dataclasses.asdict(one.recorded),
                    "replayed": dataclasses.asdict(one.replayed),
                }
                for number, one in self.replays.items()
            ],
            "skipped": [{"episode": n, "reason": reason} for n, reason in self.skipped.items()],
        }

    def lines(self) -> List[str]:
        """The summary below the table."""
        found = self.to_dict()
        lines = [
            f"{self.env}: episodes: {len(self.replays)} replayed, {len(self.skipped)} skipped",
            "before contact: mean {}, median {}, p95 {} mm over {} of {} steps".format(
                *[_text(found[key], "{:.3f}") for key in ("mean_mm", "median_mm", "p95_mm")],
                found["free_steps"],
                found["steps"],
            ),
            "all steps: median {}, p95 {} mm".format(
                *[_text(found[key], "{:.3f}") for key in ("all_median_mm", "all_p95_mm")]
            ),
            "success agrees in {:.0%} at the last step, in {:.0%} at any step".format(
                found["success_agreement"], found["success_agreement_any"]
            ),
        ]
        if found["drawer_agreement"] is not None:
            lines.append(
                "drawer agrees in {:.0%}; its opening differs by {} % (median)".format(
                    found["drawer_agreement"],
                    _text(found["drawer_opening_error_median"], "{:.1f}", 100.0),
                )
            )
        return lines


def replay_file(
    file: Path, env: str = "", show: Callable[[str], None] = lambda line: None
) -> Fidelity:
    """Replay every episode of a roboverse .npy file on the embedded simulator.

    The recordings are made with roboverse's stale gripper flag, so it is on here.

    Args:
        env: task id; empty for the one in the file name.
        show: called with each line of the table as soon as it is known.

    Raises:
        ConfigError: no task id, or an unknown one.
        HostilePickleError: the file asks to run code.
        DatasetError: the file cannot be read, or none of its episodes can be replayed.
    """
    if not env:
        try:
            env = task_of(file)
        except ConfigError as error:
            raise ConfigError(error.what, "pass --task Widow250...-v0", file) from error
    task = find(env)
    trajectories = load_trajectories(file)
    fidelity = Fidelity(file, task.spec.id, {}, {})
    simulation = EmbeddedSimulation(task(), stale_gripper_flag=True)
    show(HEADER)
    try:
        for number, raw in enumerate(trajectories):
            try:
                # Seeded by the number: what no recording holds, as a bottle, differs between
                # episodes there too.
                rng = np.random.default_rng(number)
                fidelity.replays[number] = replay(simulation, parse_recording(raw), rng)
                show(_row(number, fidelity.replays[number]))
            except OfrlError as error:
                fidelity.skipped[number] = str(error)
                show(f"{number:7d} skipped: {error}"[:LINE_WIDTH])
    finally:
        simulation.close()
    if not fidelity.replays:
        raise DatasetError(
            f"no episode can be replayed on {task.spec.id}, the first for: {fidelity.skipped[0]}",
            "check that --task is what it was recorded on",
            file,
        )
    return fidelity


def require_writable(report: Path) -> None:
    """Refuse a report file that could not be written, before the time is spent.

    Raises:
        ConfigError: it is a folder, or lies in one that cannot be written to or made.
    """
    parent = next(p for p in report.absolute().parents if p.exists())
    if report.is_dir() or not (parent.is_dir() and os.access(str(parent), os.W_OK)):
        raise ConfigError("the report cannot be written there", "choose another --report", report)


def write_report(fidelity: Fidelity, report: Path) -> None:
    """Write ``fidelity.to_dict()`` as JSON; a reader sees the old file or the whole new one.

    Raises:
        DatasetError: it cannot be written.
    """
    temporary = report.with_name(f".{report.name}.{os.getpid()}.tmp")
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(f"{json.dumps(fidelity.to_dict(), indent=2, allow_nan=False)}\n")
            os.replace(str(temporary), str(report))
        finally:
            if temporary.exists():
                temporary.unlink()
    except OSError as error:
        raise DatasetError(
            f"the report cannot be written ({error.strerror or error})",
            "choose another --report",
            report,
        ) from error


def _errors(replays: Sequence[Replay]) -> Dict[str, Any]:
    """Counts of steps and errors of the end effector, over all ``replays`` together."""
    free = np.concatenate([r.errors_mm[: r.free_steps] for r in replays])
    every = np.concatenate([r.errors_mm for r in replays])
    return {
        "steps": len(every),
        "free_steps": len(free),
        "mean_mm": _mean(free),
        "median_mm": _percentile(free, 50),
        "p95_mm": _percentile(free, 95),
        "all_median_mm": _percentile(every, 50),
        "all_p95_mm": _percentile(every, 95),
    }


def _mean(values: Sequence[Any]) -> Optional[float]:
    return float(np.mean(values)) if len(values) else None


def _percentile(values: Sequence[Any], percent: float) -> Optional[float]:
    return float(np.percentile(values, percent)) if len(values) else None


def _row(number: int, one: Replay) -> str:
    errors = _errors([one])
    millimetres = [_text(errors[key], "{:.3f}") for key in ("mean_mm", "median_mm", "p95_mm")]
    ends = (one.recorded, one.replayed)
    opened = [_text(end.drawer_opening, "{:.1f}", 100.0) for end in ends]
    success = ["yes" if end.success else "no" for end in ends]
    return "{:7d} {:5d} {:5d} {:>7} {:>7} {:>7}       {:>8} {:>5}  {:>8} {:>4}".format(
        number, errors["steps"], errors["free_steps"], *millimetres, *opened, *success
    )


def _text(value: Optional[float], form: str, scale: float = 1.0) -> str:
    return "-" if value is None else form.format(scale * value)
