"""A replay buffer of two stores with few transitions, made without episodes."""

from __future__ import annotations

import numpy as np

from ofrl_robot.data.replay.array_file import ArrayFile
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.data.replay.transition_store import TransitionStore
from ofrl_robot.specs import STATE, ActionSpec

SIZE, ACTION = 12, ActionSpec(("x", "gripper"), ("m", "1"), (0.1, 1.0), "base")
SHAPES = {"image": (SIZE, SIZE, 3), STATE: (3,)}
DISCOUNT, N = 0.9, 3


def make_store(path, lengths, seed, mapped, chosen=None):
    """Episodes of these lengths; of them those that are chosen, all by default."""
    rng = np.random.default_rng(seed)
    chosen = np.arange(len(lengths)) if chosen is None else np.asarray(chosen)
    frames = sum(lengths) + len(lengths)
    images = rng.integers(0, 256, (frames, SIZE, SIZE, 3), np.uint8)
    path.write_bytes(images.tobytes())
    state = rng.normal(size=(frames, 3)).astype(np.float32)
    path.with_suffix(".state").write_bytes(state.tobytes())
    first_frames = np.concatenate([[0], np.cumsum(lengths)])[:-1] + np.arange(len(lengths))
    starts = np.concatenate([[0], np.cumsum(np.asarray(lengths)[chosen])])
    count = int(starts[-1])
    terminals = np.zeros(count, bool)
    terminals[starts[1::2] - 1] = True  # every other episode; the others ran out of time
    return TransitionStore(
        observations={
            "image": ArrayFile(path, images.shape, mapped),
            STATE: ArrayFile(path.with_suffix(".state"), state.shape, mapped, np.float32),
        },
        actions=rng.uniform(-0.9, 0.9, (count, ACTION.size)).astype(np.float32),
        rewards=rng.random(count).astype(np.float32),
        terminals=terminals,
        starts=starts,
        first_frames=first_frames[chosen],
        fingerprint="",
    )


def make_buffer(folder, mapped, chosen=None):
    """A buffer of two stores; ``chosen`` are episodes of the first."""
    stores = [
        make_store(folder / "a", (5, 1, 7, 4), 0, mapped, chosen),
        make_store(folder / "b", (4, 6), 1, mapped),
    ]
    return ReplayBuffer(stores, [0.75, 0.25], N, DISCOUNT)


def same_batch(got, wanted):
    """Whether two batches of tensors have the same names, types and numbers."""
    ours, theirs = [], []
    got.map(ours.append)
    wanted.map(theirs.append)
    assert list(got.observations) == list(wanted.observations)
    return all(
        a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
        for a, b in zip(ours, theirs)
    )
