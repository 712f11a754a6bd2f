"""Settings of a training run: data, length, networks. Importing this imports no torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Tuple

from ofrl_robot.algos.configs.base import AlgoConfig, plain
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig

_MOST = 10**9  # of any count: 11 days at 1000 steps/s
_BOUNDS = {
    "steps": (1, _MOST),
    "batch_size": (1, _MOST),
    "checkpoint_every": (1, _MOST),
    "probe_size": (1, _MOST),
    "log_every": (1, _MOST),
    "memory_mb": (1, _MOST),
    "num_traj": (0, _MOST),
    "reward_last": (0, _MOST),
    "threads": (0, 1024),  # torch crashes when the system refuses a thread
    "seed": (0, 2**63 - 1),  # what torch and numpy both take
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings that do not depend on the algorithm.

    Raises:
        ConfigError: a number is out of range.
    """

    steps: int = 8000
    """Gradient steps."""
    batch_size: int = 128
    """Transitions per step."""
    checkpoint_every: int = 500
    """Steps between checkpoints; each is kept and probed."""
    probe_size: int = 4096
    """Transitions of the fixed probe set on which the workflow's metrics are measured."""
    log_every: int = 50
    """Steps between rows of training losses in train.csv."""
    seed: int = 0
    """Seed of networks, batches and probe."""
    threads: int = 0
    """CPU threads (0 = torch's default)."""
    device: str = "cpu"
    """torch device ("cpu", "cuda")."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of convolutions and linear layers. "auto": bf16 where the processor has it
    (1.3x faster steps measured with the small encoder), else fp32."""
    observe: str = ""
    """What the policy sees: names of cameras, and "state" for the state vector, separated by
    commas, e.g. image,wrist,state (empty = the dataset's first camera)."""
    cache: Optional[Path] = None
    """Folder for the replay cache (default: <dataset>/.cache)."""
    memory_mb: int = 4096
    """Bound on the memory that the data may take (MiB). Observations that fit are mapped, others
    are read from disk when they are drawn."""
    num_traj: int = 0
    """Train on the first N episodes of each dataset (0 = all)."""
    split: str = ""
    """Train on this split of the task data, e.g. train (empty = all episodes). With train, the
    metrics are measured on the split valid as well."""
    prior_fraction: Optional[float] = None
    """Share of every batch that is drawn from the prior data (default: its share of all
    transitions)."""
    reward_scale: float = 1.0
    """Rewards become reward * scale + bias."""
    reward_bias: float = 0.0
    """See reward_scale; -1 turns rewards of 0 and 1 into -1 and 0."""
    reward_last: int = 0
    """Replace the task's rewards: 1 at the last N steps of each episode that is labelled a success,
    0 elsewhere (0 = as recorded; PTR's recipe for real arms). Before reward_scale and bias."""
    terminal_on_success: bool = False
    """Make the last step of each successful episode of the task a terminal: nothing comes after a
    success. Else it is a timeout, and the value of its last observation is extrapolated."""
    successes_only: bool = False
    """Train on the task's successful episodes only (with --algo bc: filtered cloning)."""
    wandb: str = ""
    """Weights & Biases project to log to as well (empty = none; needs wandb)."""

    @property
    def observed(self) -> Tuple[str, ...]:
        """Names in ``observe``, in order; empty for the dataset's first camera."""
        return tuple(name.strip() for name in self.observe.split(",")) if self.observe else ()

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"{name} {value} is below {least}", f"give {least} to {most}")
            if value > most:
                raise ConfigError(f"{name} {value} is above {most}", f"give {least} to {most}")
        if self.prior_fraction is not None and not 0.0 < self.prior_fraction < 1.0:
            raise ConfigError(f"prior_fraction {self.prior_fraction} is not in (0, 1)", "e.g. 0.5")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run; written to ``config.json`` in full.

    Attributes:
        dataset: folder of the task data.
        algo: name of the algorithm.
        algo_config, nets, train: settings.
        prior: folder of data of other tasks, whose rewards count as 0 (before the bias).

    Raises:
        ConfigError: settings exclude each other, or one of them would do nothing.
    """

    dataset: Path
    algo: str
    algo_config: AlgoConfig
    nets: NetConfig
    train: TrainConfig
    prior: Optional[Path] = None

    def __post_init__(self) -> None:
        self.algo_config.check(self.nets)
        if self.prior is None and self.train.prior_fraction is not None:
            raise ConfigError(
                "prior_fraction does nothing without prior data", "set both or drop it"
            )
        if self.prior is not None and self.prior.resolve() == self.dataset.resolve():
            raise ConfigError("prior and task data are the same folder", "drop --prior", self.prior)
        warm = self.algo_config.warm_start_steps
        if warm and warm >= self.train.steps:
            raise ConfigError(
                f"the warm start ({warm} steps) fills the whole run ({self.train.steps} steps)",
                "raise --steps or lower --warm-start-steps",
            )

    def to_dict(self) -> Dict[str, Any]:
        """Return JSON-able values; paths of data are absolute."""
        return {
            "dataset": str(self.dataset.resolve()),
            "prior": None if self.prior is None else str(self.prior.resolve()),
            "algo": self.algo,
            "algo_config": plain(self.algo_config),
            "nets": plain(self.nets),
            "train": plain(self.train),
        }


def config_differences(old: Dict[str, Any], new: Dict[str, Any]) -> Dict[str, Tuple[Any, Any]]:
    """Return the settings that differ in two configs, by name: (old, new).

    Args:
        old, new: of :meth:`RunConfig.to_dict`, or read from ``config.json``.
    """
    flat_old, flat_new = _flat(old), _flat(new)
    differing = {}
    for name in {**flat_old, **flat_new}:
        pair = (flat_old.get(name, "(absent)"), flat_new.get(name, "(absent)"))
        if pair[0] != pair[1]:
            differing[name] = pair
    return differing


def _flat(config: Dict[str, Any]) -> Dict[str, Any]:
    """Return the settings of all parts in one dict; names are unique, since they are flags."""
    flat: Dict[str, Any] = {}
    for name, value in json.loads(json.dumps(config)).items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat
