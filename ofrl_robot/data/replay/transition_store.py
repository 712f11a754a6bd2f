"""Hold the transitions of a dataset as flat arrays; observations stay in files.

The files are built once from the episodes (:mod:`ofrl_robot.data.replay.store_cache`). Every frame
is stored once: a transition reads two neighbours (an episode of T transitions has T+1 frames),
half of what storing obs and next_obs apart would take.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.replay import store_cache
from ofrl_robot.data.replay.array_file import ArrayFile
from ofrl_robot.data.replay.returns import last_rewarded, monte_carlo, relabel
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import STATE

_MIB = 1 << 20


@dataclasses.dataclass
class TransitionStore:
    """Flat view of the chosen episodes of a dataset, one after another.

    Attributes:
        observations: by name, in the order in which the policy reads them: uint8 (F, H, W, 3) per
            camera, float32 (F, D) for the state. F frames of all episodes of the dataset.
        actions: float32 (N, A), clipped to +-(1 - 1e-5) so that atanh is finite.
        rewards: float32 (N,).
        terminals: bool (N,), true terminals only, never timeouts.
        starts: int64 (E+1,), episode e has the transitions starts[e] .. starts[e + 1] - 1.
        first_frames: int64 (E,), the frame before the first transition of each episode.
        fingerprint: SHA-256 of the whole dataset, whichever episodes are chosen.
    """

    observations: Dict[str, ArrayFile]
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    starts: np.ndarray
    first_frames: np.ndarray
    fingerprint: str
    _returns: Dict[float, np.ndarray] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """Shape of one observation of each name, in order."""
        return {name: file.shape[1:] for name, file in self.observations.items()}

    @property
    def frame_spans(self) -> List[Tuple[int, int]]:
        """Frames [first, stop) of each chosen episode."""
        stops = self.first_frames + np.diff(self.starts) + 1
        return list(zip(self.first_frames.tolist(), stops.tolist()))

    def locate(self, index: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return where transitions are in the files and in their episodes.

        Args:
            index: int64 (B,), transitions.

        Returns:
            int64 (B,), the frame before each transition; the frame k steps later is k further.
            int64 (B,), transitions left in its episode, itself included.
        """
        episode = np.searchsorted(self.starts, index, side="right") - 1
        frame = self.first_frames[episode] + index - self.starts[episode]
        return frame, self.starts[episode + 1] - index

    def returns(self, discount: float) -> np.ndarray:
        """Return the Monte-Carlo return of every transition, float32 (N,); computed once."""
        if discount not in self._returns:
            self._returns[discount] = monte_carlo(
                self.rewards, self.terminals, self.starts, discount
            )
        return self._returns[discount]

    def relabelled(self, scale: float, bias: float) -> "TransitionStore":
        """Return the same transitions with the rewards ``rewards * scale + bias``."""
        return dataclasses.replace(self, rewards=relabel(self.rewards, scale, bias))

    def with_outcomes(
        self, successes: np.ndarray, reward_last: int, terminal: bool
    ) -> "TransitionStore":
        """Return the same transitions with what the label of each episode says about its end.

        Args:
            successes: bool (E,), whether each chosen episode succeeded.
            reward_last: replace all rewards: 1 at so many last steps of a success, else 0; 0
                keeps the recorded ones.
            terminal: make the last step of a success a terminal.
        """
        rewards, terminals = self.rewards, self.terminals
        if reward_last:
            rewards = last_rewarded(self.starts, successes, reward_last)
        if terminal:
            terminals = terminals.copy()
            terminals[self.starts[1:][successes] - 1] = True
        return dataclasses.replace(self, rewards=rewards, terminals=terminals)

    @property
    def resident_bytes(self) -> int:
        """Memory that it takes at most, batches not included (bytes)."""
        arrays = self.actions, self.rewards, self.terminals, self.starts, self.first_frames
        mapped = sum(file.nbytes for file in self.observations.values() if file.mapped)
        return mapped + sum(array.nbytes for array in arrays) + self.rewards.nbytes  # returns


def open_transition_store(
    dataset: Dataset,
    observe: Sequence[str] = (),
    cache: Optional[Path] = None,
    episodes: Optional[Sequence[int]] = None,
    memory_mb: float = 4096,
) -> TransitionStore:
    """Open the store of ``dataset``; its files are built on first use.

    Args:
        dataset: the episodes.
        observe: names of the cameras, and ``specs.STATE``, that the policy will see; by default
            the first camera. Only their files are built.
        cache: folder for the files, ``<dataset>/.cache`` by default.
        episodes: positions in ``dataset.paths``, ascending, of those to use; all by default.
            The files on disk hold the whole dataset, whichever are chosen.
        memory_mb: bound on the resident memory (MiB). Observations that fit are mapped into
            memory, others are read from disk when they are drawn.

    Raises:
        DatasetError: the files cannot be built or are damaged.
        ConfigError: ``observe`` is not what the dataset holds, or the bound is below what must be
            in memory (actions, rewards, terminals, returns).
    """
    shapes = dataset.observation_spec.shapes(observe)
    if shapes.get(STATE) == (0,):
        raise ConfigError("its state vector has no entries", "drop state from --observe")
    paths = store_cache.require_files(dataset, list(shapes), cache)
    chosen = np.arange(len(dataset.paths)) if episodes is None else np.asarray(episodes)
    try:
        return _open(paths, shapes, dataset, chosen, int(memory_mb * _MIB))
    except (OSError, ValueError) as error:
        folders = sorted({str(path.parent) for path in paths.values()})
        raise DatasetError(
            f"damaged replay cache ({error})", "delete these folders", ", ".join(folders)
        ) from error


def _open(
    paths: Dict[str, Path],
    shapes: Dict[str, Tuple[int, ...]],
    dataset: Dataset,
    chosen: np.ndarray,
    bound: int,
) -> TransitionStore:
    """Open the files within ``bound`` bytes of memory, for the episodes ``chosen``."""
    lengths = np.asarray(dataset.lengths, np.int64)
    size = dataset.action_spec.size
    all_starts = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.concatenate([[0], np.cumsum(lengths[chosen])])
    first_frames = all_starts[chosen] + chosen  # one frame more than transitions per episode
    rows_and_returns = int(starts[-1]) * (4 * size + 4 + 1 + 4)
    needed = rows_and_returns + starts.nbytes + first_frames.nbytes
    if needed > bound:
        raise ConfigError(
            f"actions and rewards of {starts[-1]} transitions take {needed / _MIB:.1f} "
            f"MiB, {bound / _MIB:.1f} may be used",
            "raise --memory-mb or use fewer episodes",
            dataset.folder,
        )
    frames = int(all_starts[-1]) + len(lengths)
    observations = {}
    for name in sorted(shapes, key=lambda name: name != STATE):  # the small one first
        shape = (frames,) + shapes[name]
        dtype = store_cache.DTYPES[STATE] if name == STATE else np.uint8
        file_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        mapped = needed + file_bytes <= bound
        needed += file_bytes if mapped else 0
        observations[name] = ArrayFile(paths[name], shape, mapped, dtype)
    runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
    spans = [(int(all_starts[run[0]]), int(all_starts[run[-1] + 1])) for run in runs]
    rows: Dict[str, np.ndarray] = {}
    for name in store_cache.PER_STEP:
        shape = (int(all_starts[-1]),) + ((size,) if name == "actions" else ())
        rows[name] = _read_spans(paths[name], shape, store_cache.DTYPES[name], spans)
    return TransitionStore(
        observations={name: observations[name] for name in shapes},
        starts=starts,
        first_frames=first_frames,
        fingerprint=dataset.fingerprint(),
        **rows,
    )


def _read_spans(
    path: Path, shape: Tuple[int, ...], dtype: type, spans: Sequence[Tuple[int, int]]
) -> np.ndarray:
    """Return the rows [start, stop) of each span, joined; never twice in memory."""
    count = sum(stop - start for start, stop in spans)
    rows: np.ndarray = np.empty((count,) + shape[1:], dtype)
    row_bytes = int(np.prod(shape[1:], initial=rows.itemsize))
    # a link in a dataset's cache could show any file of this machine as actions
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        if os.fstat(file.fileno()).st_size != shape[0] * row_bytes:
            raise ValueError(f"{shape[0]} rows expected in {path.name}")
        done = 0
        for start, stop in spans:
            file.seek(start * row_bytes)
            file.readinto(rows[done : done + stop - start].data)
            done += stop - start
    return rows
