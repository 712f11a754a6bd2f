"""Several datasets as one: which episodes of each, its share of a batch, its rewards."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import List, Optional, Sequence

from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.datasets.splits import select
from ofrl_robot.data.replay.returns import relabel
from ofrl_robot.data.replay.transition_store import TransitionStore, open_transition_store
from ofrl_robot.errors import ConfigError, SpecMismatchError
from ofrl_robot.specs import require_same


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset folder and how it is used.

    Attributes:
        first: use at most so many episodes, the first ones (0 = all).
        split: use this split's episodes only (empty = all).
        reward_scale, reward_bias: rewards become reward * scale + bias; scale 0 zeroes them, as
            is done with prior data that shows another task.
    """

    folder: Path
    first: int = 0
    split: str = ""
    reward_scale: float = 1.0
    reward_bias: float = 0.0

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ConfigError(f"the first {self.first} episodes", "0 stands for all")
        for name in ("reward_scale", "reward_bias"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}")


@dataclasses.dataclass
class OpenSource:
    """A source that is open.

    Attributes:
        dataset: its chosen episodes. store: their transitions, rewards relabelled.
    """

    dataset: Dataset
    store: TransitionStore


def open_sources(
    sources: Sequence[Source],
    camera: str = "",
    cache: Optional[Path] = None,
    memory_mb: float = 4096,
) -> List[OpenSource]:
    """Open datasets that are to be trained on together.

    Args:
        camera: which camera's frames (empty = the first).
        cache, memory_mb: as in ``transition_store``; the bound holds for
            all together, those named first are mapped first.

    Raises SpecMismatchError naming both folders where their specs differ.
    """
    datasets = [open_dataset(source.folder) for source in sources]
    reference = datasets[0]
    fix = "train on them apart, or convert one"
    for dataset in datasets[1:]:
        names = str(dataset.folder), str(reference.folder)
        require_same(dataset.action_spec, reference.action_spec, *names, fix)
        require_same(dataset.observation_spec, reference.observation_spec, *names, fix)
        rates = [d.metas[0].control_rate_hz for d in (dataset, reference)]
        if abs(rates[0] - rates[1]) > 0.01 * rates[1]:  # the same margin as in deployment
            raise SpecMismatchError(
                f"control rate of {names[0]} is {rates[0]:g} Hz but that of {names[1]} "
                f"is {rates[1]:g} Hz",
                fix,
            )
    cameras = [c.name for c in reference.observation_spec.cameras]
    if camera and camera not in cameras:
        raise ConfigError(f"no camera {camera!r} in the dataset", "", reference.folder)
    opened = []
    for source, dataset in zip(sources, datasets):
        episodes = select(dataset, source.first, source.split)
        store = open_transition_store(dataset, camera or cameras[0], cache, episodes, memory_mb)
        memory_mb -= store.resident_bytes / (1 << 20)
        store.rewards = relabel(store.rewards, source.reward_scale, source.reward_bias)
        opened.append(OpenSource(dataset.subset(episodes), store))
    return opened
