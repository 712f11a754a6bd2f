"""Hold what a run has in memory: data, algorithm, sampler, probes. Knows nothing of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional

import torch

from ofrl_robot.algos.base import Algorithm, Build
from ofrl_robot.algos.build import make_algorithm
from ofrl_robot.data.replay.sampler import MixedSampler
from ofrl_robot.errors import ConfigError, TrainingError
from ofrl_robot.policy.header import Header
from ofrl_robot.policy.origin import data_environment
from ofrl_robot.training.allocator import keep_freed_memory
from ofrl_robot.training.behavior import load_behavior
from ofrl_robot.training.config import RunConfig
from ofrl_robot.training.data import TrainData, open_data
from ofrl_robot.training.graph import GraphedUpdate
from ofrl_robot.training.pictures import PictureData
from ofrl_robot.training.probe import Probe
from ofrl_robot.training.resident import device_data
from ofrl_robot.training.resolved import Resolved, resolved

# of the held-out episodes: those that show an overfit
VALID_METRICS = ("data_q", "td_error", "cql_term", "data_log_prob", "behavior_loss")


class Learner:
    """Everything that ``config`` determines, ready for the first step.

    Args:
        config: of the run.
        data: of the run, opened here by default.

    Attributes:
        config, data, algorithm, sampler: as built.

    Raises:
        OfrlError: the run cannot be trained. Nothing is written but the replay cache.
    """

    def __init__(self, config: RunConfig, data: Optional[TrainData] = None) -> None:
        keep_freed_memory()
        self.config = config
        train = config.train
        device = open_device(train.device)
        bf16 = uses_bf16(train.precision, device)
        set_up_cuda(train.precision, device)
        self.data: TrainData = data or open_data(config)
        behavior = load_behavior(config.algo_config.behavior_checkpoint, self.data)
        if train.threads:
            torch.set_num_threads(train.threads)
        torch.manual_seed(train.seed)
        build = Build(
            nets=config.nets,
            shapes=self.data.buffer.shapes,
            action=self.data.dataset.action_spec,
            device=device,
            bf16=bf16,
            reward_range=self.data.reward_range,
            state_stats=self.data.state_stats,
            behavior=behavior,
        )
        self.algorithm = _make_algorithm(config, build)
        self.sampler = MixedSampler(self.data.buffer, train.batch_size, train.seed)
        self._graphed = self._make_graphed(device)
        self._probe = Probe(self.data.buffer, train.probe_size, train.seed)
        self._valid_probe: Optional[Probe] = None
        if self.data.valid is not None:
            self._valid_probe = Probe(self.data.valid, train.probe_size, train.seed)
        held_out = self.data.valid.stores[0] if self.data.valid is not None else None
        self._pictures = PictureData(self.data.stores[0], held_out)

    @property
    def resolved(self) -> Resolved:
        """What it computes with, the settings "auto" and 0 resolved."""
        return resolved(self.algorithm.bf16, self.algorithm.device)

    @property
    def step(self) -> int:
        """Gradient steps done."""
        return self.algorithm.step

    def update(self) -> Dict[str, torch.Tensor]:
        """Do one gradient step; return scalars for the log, still on the device."""
        if self._graphed is None:
            metrics = self.algorithm.update(self.sampler.sample())
        else:
            draws = self.sampler.draw()
            if self._graphed.streams:
                self.data.buffer.prefetch(self.sampler.upcoming)
            metrics = self._graphed(draws)
        self._validate()
        return metrics

    def _validate(self) -> None:
        """Give the algorithm its held-out means if they are due."""
        if self._valid_probe is not None and self.algorithm.validates_now:
            means = self._valid_probe.mean(self.algorithm.validate, self.algorithm.device)
            self.algorithm.validated(means)

    def stops(self, requested: bool) -> bool:
        """Return whether to stop after this step, given whether this process was asked to."""
        return requested

    def measure(self) -> Dict[str, float]:
        """Return the probe metrics; those named ``valid_`` are of the held-out split."""
        metrics = self._probe.measure(self.algorithm)
        if self._valid_probe is not None:
            held_out = self._valid_probe.measure(self.algorithm)
            metrics.update({f"valid_{k}": held_out[k] for k in VALID_METRICS if k in held_out})
        return metrics

    def weights(self) -> Dict[str, torch.Tensor]:
        """Return the weights of a checkpoint: those of the algorithm's checkpoint networks."""
        weights = {}
        for name, network in self.algorithm.checkpoint_networks().items():
            weights.update({f"{name}.{k}": v for k, v in network.state_dict().items()})
        return weights

    def header(self, metrics: Dict[str, float]) -> Header:
        """Return the header of a checkpoint at this step with these probe metrics."""
        dataset = self.data.dataset
        meta = dataset.metas[0]
        summary = self._pictures.summary(self.algorithm)
        return Header(
            algo=self.config.algo,
            algo_config=self.config.to_dict()["algo_config"],
            nets=self.config.nets,
            action_spec=dataset.action_spec,
            observation_spec=dataset.observation_spec,
            observe=tuple(self.data.buffer.shapes),
            control_rate_hz=meta.control_rate_hz,
            task=meta.task,
            robot=meta.robot,
            dataset=dataset.folder.name,
            dataset_fingerprint=self.data.stores[0].fingerprint,
            step=self.step,
            probe=metrics,
            prior=self.config.prior.resolve().name if self.config.prior else "",
            environment=data_environment(each.environment for each in dataset.metas),
            pictures=summary.to_dict() if summary is not None else {},
        )

    def _make_graphed(self, device: torch.device) -> Optional[GraphedUpdate]:
        """Return the step as one CUDA graph, on a GPU."""
        if device.type != "cuda":
            return None
        return GraphedUpdate(self.algorithm, device_data(self.data.buffer, device))


def open_device(name: str) -> torch.device:
    """Return the device. Raises ConfigError if it cannot be used."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]})",
            "use --device cpu",
        ) from error
    return device


def has_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 arithmetic is native (elsewhere it is slower than float32)."""
    if device.type == "cuda":  # torch's own question counts emulation in
        return torch.cuda.get_device_properties(device).major >= 8
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether a setting of ``precision`` means bfloat16 on this device.

    Raises:
        ConfigError: it asks for bfloat16 where there is none.
    """
    if precision == "bf16" and not has_bf16(device):
        raise ConfigError(
            f"precision bf16, but {device} has no bfloat16 arithmetic",
            "use --precision auto",
        )
    return precision != "fp32" and has_bf16(device)


def set_up_cuda(precision: str, device: torch.device) -> None:
    """Choose the fastest arithmetic of a GPU that ``precision`` allows, for this process.

    Convolutions are tried out once per shape; shapes never change. What stays in float32 beside
    bfloat16 multiplies with TF32's 10 bits of mantissa unless ``precision`` is "fp32".
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"


def _make_algorithm(config: RunConfig, build: Build) -> Algorithm:
    try:
        return make_algorithm(config.algo_config, build)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        raise TrainingError(
            f"the networks do not fit in memory ({reason:.200})", "lower --hidden or --latent"
        ) from error
