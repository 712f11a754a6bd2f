"""Open the data of a run: task and prior datasets; refuse data from which nothing can be learnt.

Prior data shows other tasks: its rewards count as 0, then get the same bias as the task's.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import List, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.datasets.splits import SPLITS, read_splits, select
from ofrl_robot.data.replay.buffer import ReplayBuffer
from ofrl_robot.data.replay.sources import HOLD_OUT_EVERY, OpenSource, Source, open_sources
from ofrl_robot.data.replay.statistics import state_statistics
from ofrl_robot.data.replay.transition_store import TransitionStore
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.specs import STATE
from ofrl_robot.training.config import RunConfig

TRAIN, VALID = "train", "valid"  # splits as `ofrl data split` names them


@dataclasses.dataclass
class TrainData:
    """What a run trains on.

    Attributes:
        dataset: chosen episodes of the task.
        buffer: transitions of the task and, if given, of the prior; rewards relabelled.
        valid: held-out transitions of the task, or None.
        state_stats: mean and standard deviation (D,) of the state over the training episodes, or
            None if it is not observed.
        fingerprint: SHA-256 of everything that the sampler draws from, frames only by the sizes
            of their files.
    """

    dataset: Dataset
    buffer: ReplayBuffer
    valid: Optional[ReplayBuffer]
    state_stats: Optional[Tuple[np.ndarray, np.ndarray]]
    fingerprint: str

    @property
    def stores(self) -> Sequence[TransitionStore]:
        """Transitions of the task, then of the prior."""
        return self.buffer.stores

    @property
    def reward_range(self) -> Tuple[float, float]:
        """Least and greatest reward of all stores."""
        low = min(float(store.rewards.min()) for store in self.stores)
        return low, max(float(store.rewards.max()) for store in self.stores)


def open_data(config: RunConfig) -> TrainData:
    """Open the datasets that ``config`` names.

    Raises:
        OfrlError: they cannot be read, do not match each other, or cannot be trained on.
    """
    train = config.train
    rewards = {"reward_scale": train.reward_scale, "reward_bias": train.reward_bias}
    outcomes = {
        "successes": train.successes_only,
        "reward_last": train.reward_last,
        "terminal_on_success": train.terminal_on_success,
    }
    task = Source(config.dataset, train.num_traj, train.split, **outcomes, **rewards)
    valid: Optional[Source] = None
    if _has_valid_split(config):
        valid = Source(config.dataset, split=VALID, **outcomes, **rewards)
    elif config.algo_config.holds_out and _can_be_parted(task):
        valid = dataclasses.replace(task, part="held_out")
        task = dataclasses.replace(task, part="rest")
    sources = [task]
    if config.prior is not None:
        rewards_of_prior = {**rewards, "reward_scale": 0.0}
        sources.append(Source(config.prior, train.num_traj, **rewards_of_prior))
    trained_on = len(sources)
    if valid is not None:
        sources.append(valid)
    with np.errstate(over="ignore"):  # check_trainable raises an error that names the cause
        opened = open_sources(sources, train.observed, train.cache, train.memory_mb)
    trained, held_out = opened[:trained_on], opened[trained_on:]
    check_trainable(trained, config)
    stores = [source.store for source in trained]
    returns = {"n_step": config.algo_config.n_step, "discount": config.algo_config.discount}
    if held_out:
        state_statistics([held_out[0].store])  # raises an error for a state that is not finite
    return TrainData(
        dataset=opened[0].dataset,
        buffer=ReplayBuffer(stores, _fractions(trained, train.prior_fraction), **returns),
        valid=ReplayBuffer([held_out[0].store], [1.0], **returns) if held_out else None,
        state_stats=state_statistics(stores),
        fingerprint=_fingerprint(opened),
    )


def check_trainable(sources: List[OpenSource], config: RunConfig) -> None:
    """Refuse data from which the algorithm of ``config`` cannot learn.

    Args:
        sources: the task's first.
        config: of the run.

    Raises:
        ConfigError, DatasetError: with the reason and what to do.
    """
    for source in sources:  # recorded rewards are finite, or they would not have been read
        if not np.isfinite(source.store.rewards).all():
            raise ConfigError(
                f"its rewards * {config.train.reward_scale:g} + "
                f"{config.train.reward_bias:g} are beyond float32",
                "lower --reward-scale",
                source.dataset.folder,
            )
    task = sources[0]
    where, batch_size = task.dataset.folder, config.train.batch_size
    transitions = sum(len(source.store) for source in sources)
    if transitions < batch_size:
        raise DatasetError(
            f"{transitions} transitions, fewer than one batch of {batch_size}",
            "collect more or lower --batch-size",
            where,
        )
    if task.dataset.successes == 0:
        raise DatasetError(
            f"not one of {len(task.dataset.paths)} episodes is labelled a success",
            "collect or label successes first",
            where,
        )
    if config.algo_config.learns_values and not task.store.rewards.any():
        raise DatasetError(
            "every reward is zero, so there is no value to learn",
            "label rewards, give --reward-last 3, or train --algo bc",
            where,
        )


def _can_be_parted(source: Source) -> bool:
    """Return whether it has enough episodes for one to be held out."""
    dataset = open_dataset(source.folder)
    return len(select(dataset, source.first, source.split)) >= HOLD_OUT_EVERY


def _has_valid_split(config: RunConfig) -> bool:
    """Return whether the run trains on the split train of a dataset that has a split valid."""
    if config.train.split != TRAIN or not (config.dataset / SPLITS).is_file():
        return False
    return bool(read_splits(config.dataset).get(VALID))


def _fractions(sources: List[OpenSource], of_prior: Optional[float]) -> List[float]:
    if len(sources) == 1:
        return [1.0]
    task, prior = (len(source.store) for source in sources)
    share = prior / (task + prior) if of_prior is None else of_prior
    return [1.0 - share, share]


def _fingerprint(sources: List[OpenSource]) -> str:
    """Return a hash of the chosen episodes; it notices other splits and edited rewards."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.dataset.fingerprint().encode())
        for array in (source.store.actions, source.store.rewards, source.store.terminals):
            digest.update(np.ascontiguousarray(array))
        if STATE in source.store.shapes:
            for start, stop in source.store.frame_spans:
                digest.update(source.store.observations[STATE].block(start, stop))
    return digest.hexdigest()
