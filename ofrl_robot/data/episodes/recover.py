"""What a dead recorder left: made an episode as of its last commit, or set aside as lost."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import List

import h5py

from ofrl_robot.data.datasets.labels import NOBODY
from ofrl_robot.data.episodes import numbering, schema
from ofrl_robot.data.episodes.journal import JournaledFile
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.writer import complete, recorded_transitions
from ofrl_robot.errors import DatasetError, OfrlError

ABORT_REASON = "recovered after a crash"
LOST = "lost"  # subfolder of what could not be recovered


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What became of one partial file.

    Attributes:
        partial: its name until now.
        path: where it lies now.
        steps: transitions of the episode; 0 when it is lost.
        reason: why it is lost, or empty.
    """

    partial: Path
    path: Path
    steps: int
    reason: str = ""

    def line(self) -> str:
        if self.reason:
            return (
                f"{self.partial.name}: lost ({self.reason}), moved to "
                f"{self.path.relative_to(self.partial.parent)}"
            )
        return f"{self.partial.name}: recovered, {self.steps} steps, now {self.path.name}"


def unfinished_line(folder: Path) -> str:
    """One line about unfinished episodes of a folder; empty when there are none."""
    count = len(numbering.unfinished(folder))
    if not count:
        return ""
    return (
        "{}: {} unfinished, of a recorder that died or still runs; {} recovers what it left".format(
            folder,
            "1 episode is" if count == 1 else f"{count} episodes are",
            "`ofrl data verify --repair`",
        )
    )


def recover(folder: Path) -> List[Recovery]:
    """Recover every unfinished episode of a folder; label unknown, ``abort_reason`` as above.

    One that was finished but for its name keeps its label. What has no whole transition, or
    cannot be read, is moved to ``folder/lost``. Killed itself, it can be run again.

    Raises DatasetError while a recorder is at work in the folder, or when the disk refuses.
    """
    if not folder.is_dir():
        raise DatasetError("no such dataset folder", "check the path", folder)
    found: List[Recovery] = []
    with one_writer(folder):
        for partial in numbering.unfinished(folder):
            try:
                found.append(_recover(partial))
            except BlockingIOError:
                continue  # a process whose parent was killed still writes it, to the end
            except OSError as error:
                raise numbering.disk_error(error, partial) from error
    return found


def _recover(partial: Path) -> Recovery:
    final = partial.with_name(partial.name[: -len(".partial")])
    if final.exists() and final.samefile(partial):  # killed between giving the one name and
        partial.unlink()  # taking the other
        return Recovery(partial, final, len(read_episode(final, cameras=())))
    try:
        steps = _finish(partial)
        read_episode(partial, cameras=())
    except DatasetError as error:
        return Recovery(partial, _set_aside(partial), 0, error.what)
    return Recovery(partial, numbering.publish(partial, renumber=True), steps)


def _finish(partial: Path) -> int:
    """Complete an episode as of its last commit; returns its transitions.

    Raises DatasetError when that cannot be, OSError when the disk refuses; the file then stays
    as it is.
    """
    with JournaledFile(partial, "r+") as file:
        try:
            with h5py.File(file, "r+") as episode:
                steps = _complete(episode)
        except OfrlError:
            raise
        except Exception as error:  # h5py raises nearly anything for a damaged file
            if file.error is None:
                raise DatasetError(f"nothing readable in it ({str(error):.100})") from error
        file.commit()
        if file.error is not None:
            raise file.error
    return steps


def _complete(episode: h5py.File) -> int:
    group = episode[schema.GROUP]
    meta = schema.EpisodeMeta.from_attrs(dict(group.attrs), "")
    if "num_samples" not in group.attrs:  # else it was complete but for its name
        steps = recorded_transitions(group)
        if steps < 1:
            raise DatasetError("no whole step in it")
        complete(episode, steps, schema.UNKNOWN, NOBODY, ABORT_REASON)
    steps = int(group.attrs["num_samples"])
    for camera in meta.observation_spec.cameras:
        # after a power cut, which can also take the middle of a file; read as black otherwise
        if group[f"obs/{camera.name}"].id.get_num_chunks() <= steps:
            raise DatasetError(f"frames of {camera.name} are missing")
    return steps


def _set_aside(partial: Path) -> Path:
    room = partial.parent / LOST
    room.mkdir(exist_ok=True)
    # the number is free again, so another one of that name may have been lost before
    target = next(
        path
        for path in (room / f"{partial.name}.{k}" for k in itertools.count())
        if not path.exists()
    )
    os.rename(str(partial), str(target))
    return target
