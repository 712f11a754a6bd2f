"""What a run holds in memory: data, algorithm, sampler, probes. Knows nothing of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import torch

from ofrl_robot.algos.actor_critic import ActorCritic
from ofrl_robot.algos.base import Algorithm
from ofrl_robot.algos.config import ActorCriticConfig, BRACConfig
from ofrl_robot.algos.registry import make_algorithm
from ofrl_robot.data.replay.sampler import MixedSampler
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.policy.checkpoint import (
    ACTOR,
    CRITIC,
    Header,
    load_checkpoint,
    part,
    resolve_checkpoint,
)
from ofrl_robot.specs import require_same
from ofrl_robot.training.allocator import keep_freed_memory
from ofrl_robot.training.config import RunConfig
from ofrl_robot.training.data import TrainData, open_data
from ofrl_robot.training.graph import GraphedUpdate
from ofrl_robot.training.probe import Probe
from ofrl_robot.training.resident import ResidentData, fits

VALID_METRICS = ("data_q", "td_error", "data_log_prob")  # those that show an overfit


class Learner:
    """Everything that ``config`` determines, ready for the first step.

    Attributes:
        config, data, algorithm, sampler: as built.

    Raises OfrlError for whatever cannot be trained; writes nothing but the frame cache.
    """

    def __init__(self, config: RunConfig) -> None:
        keep_freed_memory()
        self.config, train = config, config.train
        device = open_device(train.device)
        self.data: TrainData = open_data(config)
        behavior = _behavior(config, self.data)
        if train.threads:
            torch.set_num_threads(train.threads)
        torch.manual_seed(train.seed)
        self.algorithm = self._make_algorithm(device, behavior)
        self.sampler = self._make_sampler()
        self._graphed = self._make_graphed(device)
        self._probe = Probe(self.data.stores, self.data.fractions, train.probe_size, train.seed)
        self._valid_probe = None
        if self.data.valid is not None:
            self._valid_probe = Probe([self.data.valid], [1.0], train.probe_size, train.seed)

    @property
    def step(self) -> int:
        """Gradient steps done."""
        return self.algorithm.step

    def update(self) -> Dict[str, torch.Tensor]:
        """One gradient step; returns scalars for the log, still on the device."""
        if self._graphed is not None:
            return self._graphed(self.sampler.draw())
        return self.algorithm.update(self.sampler.sample())

    def measure(self) -> Dict[str, float]:
        """Probe metrics, those named ``valid_`` on the held-out split."""
        metrics = self._probe.measure(self.algorithm)
        if self._valid_probe is not None:
            held_out = self._valid_probe.measure(self.algorithm)
            metrics.update({f"valid_{k}": held_out[k] for k in VALID_METRICS if k in held_out})
        return metrics

    def weights(self) -> Dict[str, torch.Tensor]:
        """Of a checkpoint: the averaged actor and, where there is one, the critic."""
        weights = {ACTOR + k: v for k, v in self.algorithm.average_actor.state_dict().items()}
        if isinstance(self.algorithm, ActorCritic):
            weights.update({CRITIC + k: v for k, v in self.algorithm.critic.state_dict().items()})
        return weights

    def header(self, metrics: Dict[str, float]) -> Header:
        """Of a checkpoint at this step with these probe metrics."""
        dataset, meta = self.data.dataset, self.data.dataset.metas[0]
        return Header(
            algo=self.config.algo,
            algo_config=self.config.to_dict()["algo_config"],
            nets=self.config.nets,
            action_spec=dataset.action_spec,
            observation_spec=dataset.observation_spec,
            camera=self.data.camera,
            control_rate_hz=meta.control_rate_hz,
            task=meta.task,
            robot=meta.robot,
            dataset=dataset.folder.name,
            dataset_fingerprint=self.data.stores[0].fingerprint,
            step=self.step,
            probe=metrics,
            prior=self.config.prior.resolve().name if self.config.prior else "",
        )

    def _make_algorithm(self, device: torch.device, behavior: Dict[str, Actor]) -> Algorithm:
        config = self.config
        options: Dict[str, Any] = dict(behavior)
        if isinstance(config.algo_config, ActorCriticConfig):
            options["reward_range"] = self.data.reward_range
        precision = config.train.precision
        bf16 = precision == "bf16" or (precision == "auto" and has_bf16(device))
        return make_algorithm(
            config.algo_config,
            config.nets,
            self.data.observation_shape,
            self.data.dataset.action_spec,
            device,
            bf16,
            **options,
        )

    def _make_graphed(self, device: torch.device) -> Optional[GraphedUpdate]:
        """The step as one CUDA graph, where there is a GPU that holds the data."""
        if device.type != "cuda" or not fits(self.data.stores, device):
            return None
        n = (
            self.config.algo_config.n_step
            if isinstance(self.config.algo_config, ActorCriticConfig)
            else 1
        )
        data = ResidentData(self.data.stores, device, n, self.algorithm.discount)
        return GraphedUpdate(self.algorithm, data, self.config.train.batch_size)

    def _make_sampler(self) -> MixedSampler:
        train, algo_config, returns = self.config.train, self.config.algo_config, {}
        if isinstance(algo_config, ActorCriticConfig):
            returns = {"n": algo_config.n_step, "discount": algo_config.discount}
        return MixedSampler(
            self.data.stores, self.data.fractions, train.batch_size, train.seed, **returns
        )


def open_device(name: str) -> torch.device:
    """The device, or ConfigError where it cannot be used."""
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
    """Whether bfloat16 arithmetic is native there (on others it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _behavior(config: RunConfig, data: TrainData) -> Dict[str, Actor]:
    """BRAC's behaviour policy where it was trained before, as an option of its algorithm."""
    if not isinstance(config.algo_config, BRACConfig) or config.algo_config.behavior_path is None:
        return {}
    path = resolve_checkpoint(config.algo_config.behavior_path)
    header, weights = load_checkpoint(path)
    dataset, fix = data.dataset, "train the behaviour policy on data of the same specs"
    names = str(path), str(dataset.folder)
    require_same(header.action_spec, dataset.action_spec, *names, fix)
    require_same(header.observation_spec, dataset.observation_spec, *names, fix)
    if header.camera != data.camera:
        raise ConfigError(
            f"the behaviour policy sees camera {header.camera!r}, this run {data.camera!r}",
            f"use --camera {header.camera}",
            path,
        )
    actor = Actor(header.nets, header.image_shape, header.action_spec)
    try:
        actor.load_state_dict(part(weights, ACTOR))
    except RuntimeError as error:
        raise CheckpointError(
            "weights do not fit the networks in its header", "train it again", path
        ) from error
    return {"behavior": actor}
