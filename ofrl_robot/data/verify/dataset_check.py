"""Is a dataset whole and normal: every file checked, each in a process that may be lost.

``ofrl data verify``. Damage is what makes a file or the dataset unusable; a warning is what lies
outside the limits.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple, Union

from ofrl_robot.data.episodes import numbering, schema
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.recover import Recovery, recover
from ofrl_robot.data.verify.episode_check import (
    DAMAGE,
    INCONSISTENT,
    MIXED_SPECS,
    UNREADABLE,
    WARNING,
    EpisodeCheck,
    Finding,
    check_episode,
)
from ofrl_robot.data.verify.report import Verification
from ofrl_robot.data.verify.thresholds import QualityLimits
from ofrl_robot.errors import DatasetError, OfrlError
from ofrl_robot.files import free_name
from ofrl_robot.processes import Lost, watched_map

DAMAGED = "damaged"  # subfolder that a repair moves damaged files to

# A file that takes longer hangs: the start of a process takes 1 s here, reading 100 MB/s and more.
_SECONDS, _BYTES_PER_SECOND = 60.0, 1e6


def verify(
    folder: Path,
    limits: QualityLimits,
    workers: int = 1,
    on_file: Optional[Callable[[int, int], None]] = None,
) -> Verification:
    """Check every episode of ``folder``, and what they have in common. Changes nothing.

    Args:
        workers: processes to check in.
        on_file: called with (files checked so far, files) after each.

    Raises DatasetError when there is no such folder, or nothing was ever recorded in it. To be
    called from the main thread.
    """
    if not folder.is_dir():
        raise DatasetError("no such dataset folder", "check the path", folder)
    paths, unfinished = schema.episode_paths(folder), numbering.unfinished(folder)
    if not paths and not unfinished:
        raise DatasetError(
            "no episode_*.h5 in it", "collect or convert some first (`ofrl collect --help`)", folder
        )
    start = time.monotonic()
    work = functools.partial(check_episode, limits=limits)
    checks: Dict[int, EpisodeCheck] = {}
    for index, result in watched_map(work, paths, _seconds, workers):
        checks[index] = _lost(paths[index], result) if isinstance(result, Lost) else result
        if on_file is not None:
            on_file(len(checks), len(paths))
    episodes = [checks[index] for index in range(len(paths))]
    findings = [finding for episode in episodes for finding in episode.findings]
    findings += [*_mixed_specs(episodes), *_duplicates(episodes)]
    findings += [
        Finding(path.name, WARNING, "unfinished",
                "being recorded now, or left by a recorder that died: --repair recovers it")
        for path in unfinished
    ]  # fmt: skip
    return Verification(folder, limits, episodes, findings, time.monotonic() - start)


def _seconds(path: Path) -> float:
    return _SECONDS + _size(path) / _BYTES_PER_SECOND


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0  # somebody may delete it meanwhile


def _lost(path: Path, lost: Lost) -> EpisodeCheck:
    finding = Finding(path.name, DAMAGE, UNREADABLE, lost.reason)
    return EpisodeCheck(path.name, _size(path), [finding])


def _mixed_specs(episodes: List[EpisodeCheck]) -> Iterator[Finding]:
    """Episodes whose spec is not that of most others, and in which field."""
    for kind in ("action_spec", "observation_spec"):
        specs = [(e.file, getattr(e, kind)) for e in episodes if getattr(e, kind) is not None]
        texts = [json.dumps(spec, sort_keys=True) for _, spec in specs]
        if len(set(texts)) < 2:
            continue
        usual_text = collections.Counter(texts).most_common(1)[0][0]
        usual_file, usual = specs[texts.index(usual_text)]
        for (file, spec), text in zip(specs, texts):
            if text != usual_text:
                fields = [
                    f"{field}: {spec.get(field)} != {usual[field]}"
                    for field in usual
                    if spec.get(field) != usual[field]
                ]
                what = "{} differs from {} in {}; move it to another folder".format(
                    kind, usual_file, "; ".join(fields)
                )
                yield Finding(file, DAMAGE, MIXED_SPECS, what)


def _duplicates(episodes: List[EpisodeCheck]) -> Iterator[Finding]:
    """Episodes with the content, task and seed of an earlier one."""
    first: Dict[Tuple[str, str, int], str] = {}
    for episode in episodes:
        if episode.digest:
            same = first.setdefault((episode.digest, episode.task, episode.seed), episode.file)
            if same != episode.file:
                text = f"the same content, task and seed as {same}"
                yield Finding(episode.file, WARNING, "duplicate", text)


# -- repair ----------------------------------------------------------------------------------


def recover_unfinished(folder: Path) -> List[str]:
    """Make episodes of what recorders that died left; a line for each.

    Raises DatasetError while a recorder is at work in the folder, or when the disk refuses.
    """
    if not numbering.unfinished(folder):
        return []
    seconds = sum(_seconds(path) for path in numbering.unfinished(folder))
    # a partial may hang or crash libhdf5 too
    ((_, result),) = watched_map(_try_recover, [folder], lambda _: seconds, workers=1)
    if isinstance(result, Lost):
        raise DatasetError(
            f"the unfinished episodes cannot be recovered ({result.reason})",
            "move the episode_*.h5.partial that was read last out of the folder",
            folder,
        )
    if isinstance(result, OfrlError):
        raise result
    return [recovery.line() for recovery in result]


def _try_recover(folder: Path) -> Union[List[Recovery], OfrlError]:
    try:
        return recover(folder)
    except OfrlError as error:
        return error


def set_aside_damaged(verification: Verification) -> Tuple[Verification, List[str]]:
    """Move damaged files to ``<folder>/damaged/``; what is left, and a line for each.

    Good files that do not fit (a newer format, another spec) stay. Nothing is deleted.

    Raises DatasetError while a recorder is at work in the folder, or when the disk refuses.
    """
    kinds = {UNREADABLE, INCONSISTENT}
    files: Dict[str, str] = {}  # and what is wrong with it first of all
    for finding in verification.of_level(DAMAGE):
        if finding.kind in kinds:
            files.setdefault(finding.file, finding.text)
    if not files:
        return verification, []
    folder, lines = verification.folder, []
    with one_writer(folder):
        try:
            (folder / DAMAGED).mkdir(exist_ok=True)
            for file, reason in files.items():
                target = free_name(folder / DAMAGED, file)
                os.rename(str(folder / file), str(target))
                moved = "{}: damaged ({}), moved to {}/{}"
                lines.append(moved.format(file, reason, DAMAGED, target.name))
        except OSError as error:
            raise DatasetError(
                f"cannot be moved ({error.strerror})", "mend that, then run it again", file
            ) from error
    return dataclasses.replace(
        verification,
        episodes=[e for e in verification.episodes if e.file not in files],
        findings=[f for f in verification.findings if f.file not in files],
    ), lines
