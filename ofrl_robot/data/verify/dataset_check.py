"""Check a whole dataset: every file, each in a process that may be lost, and what they share.

Damage makes a file or the dataset unusable; a warning is a number outside the limits.
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
from ofrl_robot.errors import DatasetError, OfrlError, printable
from ofrl_robot.files import free_name, make_folder, output_error
from ofrl_robot.processes import Lost, watched_map

DAMAGED = "damaged"  # subfolder that a repair moves damaged files to

# A file that takes longer hangs. Starting a process takes 1 s, files are read at 100 MB/s or more.
_SECONDS, _BYTES_PER_SECOND = 60.0, 1e6


def verify_dataset(
    folder: Path,
    limits: QualityLimits,
    workers: int = 1,
    on_file: Optional[Callable[[int, int], None]] = None,
) -> Verification:
    """Check every episode of ``folder``, and what they have in common. Changes nothing.

    Call it from the main thread.

    Args:
        folder: the dataset.
        limits: bounds of a normal episode.
        workers: number of processes to check in.
        on_file: called with (files checked so far, number of files) after each.

    Raises:
        DatasetError: there is no such folder, or nothing was ever recorded in it.
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
        Finding(
            path.name,
            WARNING,
            "unfinished",
            "being recorded now, or left by a recorder that died: --repair recovers it",
        )
        for path in unfinished
    ]
    return Verification(folder, limits, episodes, findings, time.monotonic() - start)


def _seconds(path: Path) -> float:
    return _SECONDS + _size(path) / _BYTES_PER_SECOND


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0  # it may be deleted meanwhile


def _lost(path: Path, lost: Lost) -> EpisodeCheck:
    finding = Finding(path.name, DAMAGE, UNREADABLE, lost.reason)
    return EpisodeCheck(path.name, _size(path), [finding])


def _mixed_specs(episodes: List[EpisodeCheck]) -> Iterator[Finding]:
    """Yield the episodes whose spec is not that of most others, with the field that differs."""
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
                what = f"{kind} differs from {usual_file} in {'; '.join(fields)}"
                yield Finding(file, DAMAGE, MIXED_SPECS, f"{what}; move it to another folder")


def _duplicates(episodes: List[EpisodeCheck]) -> Iterator[Finding]:
    """Yield the episodes with the content, task and seed of an earlier one."""
    first: Dict[Tuple[str, str, int], str] = {}
    for episode in episodes:
        if episode.digest:
            same = first.setdefault((episode.digest, episode.task, episode.seed), episode.file)
            if same != episode.file:
                text = f"the same content, task and seed as {same}"
                yield Finding(episode.file, WARNING, "duplicate", text)


# -- repair ----------------------------------------------------------------------------------


def recover_unfinished(folder: Path) -> List[str]:
    """Recover the episodes that dead recorders left; return a line for each.

    Raises:
        DatasetError: a recorder is at work in the folder, or a file crashes HDF5.
        OutputError: the disk refuses.
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
    """Move damaged files to ``<folder>/damaged/``. Nothing is deleted.

    Good files that do not fit (another format version, another spec) stay.

    Returns:
        The verification without the moved files, and a line for each of them.

    Raises:
        DatasetError: a recorder is at work in the folder.
        OutputError: the disk refuses.
    """
    reasons: Dict[str, str] = {}  # first fault by file name
    for finding in verification.of_level(DAMAGE):
        if finding.kind in (UNREADABLE, INCONSISTENT):
            reasons.setdefault(finding.file, finding.text)
    if not reasons:
        return verification, []
    folder = verification.folder
    with one_writer(folder):
        make_folder(folder / DAMAGED)
        lines = [_set_aside(folder / file, reason) for file, reason in reasons.items()]
    left = dataclasses.replace(
        verification,
        episodes=[e for e in verification.episodes if e.file not in reasons],
        findings=[f for f in verification.findings if f.file not in reasons],
    )
    return left, lines


def _set_aside(path: Path, reason: str) -> str:
    target = free_name(path.parent / DAMAGED, path.name)
    try:
        os.rename(path, target)
    except OSError as error:
        raise output_error(error, path) from error
    return printable(f"{path.name}: damaged ({reason}), moved to {DAMAGED}/{target.name}")
