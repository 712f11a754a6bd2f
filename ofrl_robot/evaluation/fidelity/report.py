"""Replay a file of roboverse episodes on the embedded simulator, and report the agreement."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image

from ofrl_robot import files
from ofrl_robot.data.convert.roboverse import task_of
from ofrl_robot.errors import ConfigError, DatasetError, OfrlError, OutputError
from ofrl_robot.evaluation.fidelity.recordings import load_trajectories, parse_recording
from ofrl_robot.evaluation.fidelity.replay import Outcome, Replay, replay
from ofrl_robot.sim.simulation import EmbeddedSimulation
from ofrl_robot.sim.tasks import find

LINE_WIDTH = 79
PICTURE_SIDE = 192  # pixels per frame of the picture, at least
_FREE_ERRORS = ("mean_mm", "median_mm", "p95_mm")  # of the steps before first contact
_ALL_ERRORS = ("all_median_mm", "all_p95_mm")
HEADER = (
    "               free    error of free steps, mm     drawer open, %      success\n"
    "episode steps steps    mean  median     p95       recorded  here  recorded here"
)


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """The agreement for all episodes of one file.

    Attributes:
        file: the file of recordings.
        env: id of the task that they were replayed on.
        replays: number of the episode in the file -> its replay, in order.
        skipped: number of the episode -> why it could not be replayed.
    """

    file: Path
    env: str
    replays: Dict[int, Replay]
    skipped: Dict[int, str]

    def to_dict(self) -> Dict[str, Any]:
        """Return the contents of the report file.

        ``mean_mm``, ``median_mm``, ``p95_mm`` are over the steps before first contact of all
        episodes together, ``all_median_mm``, ``all_p95_mm`` over all steps. An agreement is
        the fraction of episodes that end alike (``_any``: that both reach success at any step,
        or both never). Pixels are mean absolute differences of 255: of the mean first frames,
        of every episode's first frame, and of all frames. A value without any data is None.
        """
        pairs = [(r.recorded, r.replayed) for r in self.replays.values()]
        drawers = []
        openings = []
        for a, b in pairs:
            if a.drawer_opened is not None and b.drawer_opened is not None:
                drawers.append(a.drawer_opened == b.drawer_opened)
            if a.drawer_opening is not None and b.drawer_opening is not None:
                openings.append(abs(a.drawer_opening - b.drawer_opening))
        return {
            "file": self.file.name,
            "env": self.env,
            **_errors(list(self.replays.values())),
            "first_mean_px": self._first_mean_px(),
            "first_px": _mean(
                [r.pixel_errors[0] for r in self.replays.values() if len(r.pixel_errors)]
            ),
            "success_agreement": _mean([a.success == b.success for a, b in pairs]),
            "success_agreement_any": _mean([a.success_any == b.success_any for a, b in pairs]),
            "drawer_agreement": _mean(drawers),
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

    def _first_mean_px(self) -> Optional[float]:
        """Return how far the mean recorded first frame is from the mean rendered one, of 255."""
        pairs = [r.frames[:, 0] for r in self.replays.values() if r.frames is not None]
        if len({pair.shape for pair in pairs}) != 1:  # none, or of several sizes
            return None
        recorded, rendered = np.mean(pairs, axis=0)
        return float(np.abs(recorded - rendered).mean())

    def lines(self) -> List[str]:
        """Return the summary below the table."""
        found = self.to_dict()
        mean, median, p95 = (_text(found[key], "{:.3f}") for key in _FREE_ERRORS)
        all_median, all_p95 = (_text(found[key], "{:.3f}") for key in _ALL_ERRORS)
        lines = [
            f"{self.env}: episodes: {len(self.replays)} replayed, {len(self.skipped)} skipped",
            f"before contact: mean {mean}, median {median}, p95 {p95} mm over "
            f"{found['free_steps']} of {found['steps']} steps",
            f"all steps: median {all_median}, p95 {all_p95} mm",
            f"success agrees in {found['success_agreement']:.0%} at the last step, in "
            f"{found['success_agreement_any']:.0%} at any step",
        ]
        if found["all_px"] is not None:
            mean, first = (_text(found[key], "{:.1f}") for key in ("first_mean_px", "first_px"))
            lines.append(
                f"pictures differ by {first} of 255 in first frames ({mean} in their means), by "
                f"{found['all_px']:.1f} in all"
            )
        if found["drawer_agreement"] is not None:
            apart = _text(found["drawer_opening_error_median"], "{:.1f}", 100.0)
            lines.append(
                f"drawer agrees in {found['drawer_agreement']:.0%}; its opening differs by "
                f"{apart} % (median)"
            )
        return lines


def replay_file(
    file: Path, env: str = "", show: Callable[[str], None] = lambda line: None
) -> Fidelity:
    """Replay every episode of a roboverse .npy file on the embedded simulator.

    The recordings were made with roboverse's stale gripper flag, so the simulator has it, too.

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
                # Seeded by the number: the place of an object that is not recorded, such as a
                # bottle, differs between episodes in roboverse, too.
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
    """Check that a report file can be written, before the time for the replay is spent.

    Raises:
        OutputError: it is a folder, or its folder cannot be made or written to.
    """
    parent = next(p for p in report.absolute().parents if p.exists())
    if report.is_dir() or not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OutputError("the report cannot be written there", "choose another file", report)


def write_report(fidelity: Fidelity, report: Path) -> None:
    """Write ``fidelity.to_dict()`` as JSON; a reader sees the old file or the whole new one.

    Raises:
        OutputError: the disk refuses.
    """
    files.make_folder(report.parent)
    text = json.dumps(fidelity.to_dict(), indent=2, allow_nan=False)
    files.write_whole(report, f"{text}\n")


def write_picture(fidelity: Fidelity, picture: Path) -> None:
    """Write a PNG of one episode: recorded above, rendered below; start, middle and end.

    Raises:
        DatasetError: no replayed episode has images.
        OutputError: the disk refuses.
    """
    shown = [one.frames for one in fidelity.replays.values() if one.frames is not None]
    if not shown:
        raise DatasetError("has no images to show", "leave --picture out", fidelity.file)
    rows = [np.concatenate(list(frames), axis=1) for frames in shown[0]]
    scale = max(1, PICTURE_SIDE // shown[0].shape[2])
    pixels = np.concatenate(rows).repeat(scale, axis=0).repeat(scale, axis=1)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", optimize=True)
    files.make_folder(picture.parent)
    files.write_whole(picture, encoded.getvalue())


def _errors(replays: Sequence[Replay]) -> Dict[str, Any]:
    """Return the steps and the errors of the end effector over all ``replays`` together."""
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
        "all_px": _mean(np.concatenate([r.pixel_errors for r in replays])),
    }


def _mean(values: Union[np.ndarray, Sequence[float]]) -> Optional[float]:
    return float(np.mean(values)) if len(values) else None


def _percentile(values: Union[np.ndarray, Sequence[float]], percent: float) -> Optional[float]:
    return float(np.percentile(values, percent)) if len(values) else None


def _row(number: int, one: Replay) -> str:
    """Return the line of the table below ``HEADER`` for one episode."""
    errors = _errors([one])
    mean, median, p95 = (_text(errors[key], "{:.3f}") for key in _FREE_ERRORS)
    recorded, replayed = (_end(outcome) for outcome in (one.recorded, one.replayed))
    return (
        f"{number:7d} {errors['steps']:5d} {errors['free_steps']:5d} {mean:>7} {median:>7} "
        f"{p95:>7}       {recorded[0]:>8} {replayed[0]:>5}  {recorded[1]:>8} {replayed[1]:>4}"
    )


def _end(outcome: Outcome) -> Tuple[str, str]:
    """Return the opening of the drawer and the success as text."""
    return _text(outcome.drawer_opening, "{:.1f}", 100.0), "yes" if outcome.success else "no"


def _text(value: Optional[float], form: str, scale: float = 1.0) -> str:
    return "-" if value is None else form.format(scale * value)
