"""Recover the episodes of killed recorders up to the last commit, or move them to ``lost/``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import List

import h5py

from ofrl_robot.data.episodes import numbering, schema
from ofrl_robot.data.episodes.completing import complete, recorded_transitions
from ofrl_robot.data.episodes.hdf5_safety import (
    named_damage,
    require_regular,
    require_self_contained,
)
from ofrl_robot.data.episodes.journal import JournaledFile
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_episode, require_written
from ofrl_robot.errors import DatasetError, printable
from ofrl_robot.files import free_name, make_folder

ABORT_REASON = "recovered after a crash"
LOST = "lost"  # subfolder for files that cannot be recovered


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Result for one partial file.

    Attributes:
        partial: its path before.
        path: its path now.
        steps: transitions of the episode; 0 if it is lost.
        reason: why it is lost, or empty.
    """

    partial: Path
    path: Path
    steps: int
    reason: str = ""

    def line(self) -> str:
        """Return one line that says what was done."""
        where = self.path.relative_to(self.partial.parent)
        if self.reason:
            text = f"{self.partial.name}: lost ({self.reason}), moved to {where}"
        else:
            text = f"{self.partial.name}: recovered, {self.steps} steps, now {where}"
        return printable(text)


def unfinished_line(folder: Path) -> str:
    """Return one line about the unfinished episodes of a folder; empty if there are none."""
    count = len(numbering.unfinished(folder))
    if not count:
        return ""
    episodes = "1 episode is" if count == 1 else f"{count} episodes are"
    return (
        f"{folder}: {episodes} unfinished, being recorded now or left by a recorder that died; "
        "recover with `ofrl data verify --repair`"
    )


def recover(folder: Path) -> List[Recovery]:
    """Recover every unfinished episode of a folder, without a label, up to its last commit.

    ``abort_reason`` becomes ``ABORT_REASON``. An episode that was finished except for its name
    keeps its label. A file without a whole transition, or that cannot be read, is moved to
    ``<folder>/lost``. If this process is killed, run it again.

    Raises:
        DatasetError: there is no such folder, or a recorder is at work in it.
        OutputError: the disk refuses.
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
        require_regular(partial)
        steps = _finish(partial)
        read_episode(partial, cameras=())
    except DatasetError as error:
        return Recovery(partial, _set_aside(partial), 0, error.what)
    return Recovery(partial, numbering.publish(partial, renumber=True), steps)


def _finish(partial: Path) -> int:
    """Complete an episode as of its last commit and return its number of transitions.

    The file stays as it is when this raises DatasetError (it cannot be recovered) or OSError (the
    disk refuses).
    """
    with JournaledFile(partial, "r+") as file:
        steps = 0
        try:
            with named_damage(partial, "nothing readable in it"):
                with h5py.File(file, "r+") as episode:
                    require_self_contained(episode, partial)
                    steps = _complete(episode, partial)
        except DatasetError:
            if file.error is None:
                raise
        file.commit()
        if file.error is not None:
            raise file.error
    return steps


def _complete(episode: h5py.File, path: Path) -> int:
    group = episode[schema.GROUP]
    meta = schema.EpisodeMeta.from_attrs(dict(group.attrs), path)
    if "num_samples" not in group.attrs:  # else it was complete except for its name
        steps = recorded_transitions(group)
        if steps < 1:
            raise DatasetError("no whole step in it")
        complete(episode, steps, schema.UNKNOWN, schema.NO_LABEL_SOURCE, ABORT_REASON)
    for camera in meta.observation_spec.cameras:
        # a power cut can also take the middle of a file
        require_written(group[f"obs/{camera.name}"], f"obs/{camera.name}", path)
    return int(group.attrs["num_samples"])


def _set_aside(partial: Path) -> Path:
    lost = partial.parent / LOST
    make_folder(lost)
    # the number is free again, so a file of the same name may have been lost before
    target = free_name(lost, partial.name)
    os.rename(partial, target)
    return target
