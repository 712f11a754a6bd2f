"""Settings of a training run: where, how long, which networks. Importing this imports no torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Tuple

from ofrl_robot.algos.config import AlgoConfig, plain
from ofrl_robot.errors import ConfigError
from ofrl_robot.nets.config import NetConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
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
    camera: str = ""
    """Camera the policy sees (empty = the dataset's first)."""
    cache: Optional[Path] = None
    """Folder for the frame cache (default: <dataset>/.cache)."""
    memory_mb: int = 4096
    """Bound on the memory that the data may take (MiB). Frames that fit are mapped, others are
    read from disk as they are drawn."""
    num_traj: int = 0
    """Train on the first so many episodes of each dataset (0 = all)."""
    split: str = ""
    """Train on this split of the task data, e.g. train (empty = all episodes). With train, the
    metrics are measured on the split valid, too."""
    prior_fraction: Optional[float] = None
    """Share of every batch that is drawn from the prior data (default: its share of all
    transitions)."""
    reward_scale: float = 1.0
    """Rewards become reward * scale + bias."""
    reward_bias: float = 0.0
    """See reward_scale; -1 turns rewards of 0 and 1 into -1 and 0."""
    wandb: str = ""
    """Weights & Biases project to log to as well (empty = none; needs wandb)."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "probe_size", "log_every",
                     "memory_mb"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} is below 1")
        for name in ("seed", "threads", "num_traj"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)} is below 0")
        if self.prior_fraction is not None and not 0.0 < self.prior_fraction < 1.0:
            raise ConfigError(f"prior_fraction {self.prior_fraction} is not in (0, 1)")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run; written to ``config.json`` in full.

    Attributes:
        dataset: folder of the task data. prior: folder of data of other tasks, whose rewards count
            as 0 (before the bias).

    Raises ConfigError for settings that exclude each other, or that would do nothing.
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
                "prior_fraction does nothing without prior data", "give --prior or leave it away"
            )
        if self.prior is not None and self.prior.resolve() == self.dataset.resolve():
            raise ConfigError("prior and task data are the same folder", "", self.prior)
        warm = getattr(self.algo_config, "warm_start_steps", 0)
        if warm >= self.train.steps:
            raise ConfigError(
                f"the warm start ({warm} steps) fills the whole run ({self.train.steps} steps)",
                "raise --steps or lower --warm-start-steps",
            )

    def to_dict(self) -> Dict[str, Any]:
        """As JSON-able values."""
        return {
            "dataset": str(self.dataset),
            "prior": None if self.prior is None else str(self.prior),
            "algo": self.algo,
            "algo_config": plain(self.algo_config),
            "nets": plain(self.nets),
            "train": plain(self.train),
        }


def config_differences(old: Dict[str, Any], new: Dict[str, Any]) -> Dict[str, Tuple[Any, Any]]:
    """Settings that two configs (:meth:`RunConfig.to_dict`) have different, by name: (old, new)."""
    flat_old, flat_new = _flat(old), _flat(new)
    absent = "(absent)"
    return {
        name: (flat_old.get(name, absent), flat_new.get(name, absent))
        for name in list(flat_old) + [n for n in flat_new if n not in flat_old]
        if flat_old.get(name, absent) != flat_new.get(name, absent)
    }


def _flat(config: Dict[str, Any]) -> Dict[str, Any]:
    """The settings of all parts; names are unique, since they are flags."""
    flat: Dict[str, Any] = {}
    for name, value in json.loads(json.dumps(config)).items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat
