"""Settings of a training run: where, how long, which networks. Importing this imports no torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, Optional

from typing_extensions import Literal

from ofrl_robot.algos.config import AlgoConfig
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
    """Train on the first so many episodes (0 = all)."""
    split: str = ""
    """Train on this split of the dataset, e.g. train (empty = all episodes)."""
    reward_scale: float = 1.0
    """Rewards become reward * scale + bias."""
    reward_bias: float = 0.0
    """See reward_scale; -1 turns rewards of 0 and 1 into -1 and 0."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "probe_size", "log_every",
                     "memory_mb"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError("{} {} is below 1".format(name, getattr(self, name)))
        for name in ("seed", "threads", "num_traj"):
            if getattr(self, name) < 0:
                raise ConfigError("{} {} is below 0".format(name, getattr(self, name)))


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run; written to ``config.json`` in full."""

    dataset: Path
    algo: str
    hyper: AlgoConfig
    nets: NetConfig
    train: TrainConfig

    def to_dict(self) -> Dict[str, Any]:
        return {
            "dataset": str(self.dataset),
            "algo": self.algo,
            "hyper": dataclasses.asdict(self.hyper),
            "nets": dataclasses.asdict(self.nets),
            "train": {
                k: str(v) if isinstance(v, Path) else v
                for k, v in dataclasses.asdict(self.train).items()
            },
        }
