"""The data of a run: task and prior datasets opened together, and refused where they teach nothing.

Prior data shows other tasks: its rewards count as 0, then get the same bias as the task's.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import List, Optional, Tuple

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.datasets.splits import SPLITS, read_splits
from ofrl_robot.data.replay.sources import OpenSource, Source, open_sources
from ofrl_robot.data.replay.transition_store import TransitionStore
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.training.config import RunConfig

TRAIN, VALID = "train", "valid"  # splits as `ofrl data split` names them


@dataclasses.dataclass
class TrainData:
    """What is trained on.

    Attributes:
        dataset: chosen episodes of the task. camera: what the policy sees.
        stores: transitions of the task and, where there is one, of the prior; rewards relabelled.
        fractions: share of each in a batch, of sum 1.
        valid: held-out transitions of the task, None where there are none.
        fingerprint: SHA-256 of all that the sampler draws from, frames only by their files' sizes.
    """

    dataset: Dataset
    camera: str
    stores: List[TransitionStore]
    fractions: List[float]
    valid: Optional[TransitionStore]
    fingerprint: str

    @property
    def reward_range(self) -> Tuple[float, float]:
        """Least and greatest reward of all stores."""
        low = min(float(store.rewards.min()) for store in self.stores)
        return low, max(float(store.rewards.max()) for store in self.stores)

    @property
    def observation_shape(self) -> Tuple[int, ...]:
        return tuple(self.stores[0].frames.shape[1:])


def open_data(config: RunConfig) -> TrainData:
    """Open what ``config`` names.

    Raises DatasetError, ConfigError or SpecMismatchError for data that cannot be trained on.
    """
    train = config.train
    rewards = {"reward_scale": train.reward_scale, "reward_bias": train.reward_bias}
    sources = [Source(config.dataset, train.num_traj, train.split, **rewards)]
    if config.prior is not None:
        rewards_of_prior = {**rewards, "reward_scale": 0.0}
        sources.append(Source(config.prior, train.num_traj, **rewards_of_prior))
    trained_on = len(sources)
    if _holds_out(config):
        sources.append(Source(config.dataset, split=VALID, **rewards))
    with np.errstate(over="ignore"):  # check_trainable says it in words
        opened = open_sources(sources, train.camera, train.cache, train.memory_mb)
    trained, held_out = opened[:trained_on], opened[trained_on:]
    check_trainable(trained, config)
    return TrainData(
        dataset=opened[0].dataset,
        camera=train.camera or opened[0].dataset.observation_spec.cameras[0].name,
        stores=[source.store for source in trained],
        fractions=_fractions(trained, train.prior_fraction),
        valid=held_out[0].store if held_out else None,
        fingerprint=_fingerprint(opened),
    )


def check_trainable(sources: List[OpenSource], config: RunConfig) -> None:
    """Refuse data from which ``config.algo`` cannot learn; says why and what to do.

    Args:
        sources: the task's first.
    """
    for source in sources:  # what was recorded is finite, or it would not have been read
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
    if config.algo != "bc" and not task.store.rewards.any():
        raise DatasetError(
            "every reward is zero, so there is no value to learn",
            "label rewards, or train --algo bc",
            where,
        )


def _holds_out(config: RunConfig) -> bool:
    """Whether the run trains on one part of a dataset whose other part is there to validate."""
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
    """Of the chosen episodes: a change of splits.json counts, and of rewards edited in place."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.dataset.fingerprint().encode())
        for array in (source.store.actions, source.store.rewards, source.store.terminals):
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
