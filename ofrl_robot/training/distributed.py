"""Train one run in several processes that torchrun started, each with its share of every batch.

    torchrun --nproc-per-node 2 -m ofrl_robot.cli train DATASET ...

All draw the same joint batch and compute on their own rows of it; torch's DistributedDataParallel
averages the gradients. Losses are means over rows, so these are the gradients of one process with
the joint batch, and all have the same weights at any time. Process 0 alone writes, probes and
shows; the others follow it step by step.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ofrl_robot.data.replay.batch import Batch
from ofrl_robot.errors import ConfigError, TrainingError
from ofrl_robot.training import loop
from ofrl_robot.training.config import RunConfig
from ofrl_robot.training.data import TrainData, open_data
from ofrl_robot.training.graph import GraphedUpdate
from ofrl_robot.training.health import problems, value_limit
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.process_group import ProcessGroup, joined
from ofrl_robot.training.staging import StreamedData
from ofrl_robot.training.state import read_state
from ofrl_robot.training.stopping import Terminated, stop_on_sigterm


def train_distributed(config: RunConfig, folder: Path, resume: bool = False) -> bool:
    """Train like :func:`ofrl_robot.training.loop.train`; under torchrun, in every process.

    Args:
        config, folder, resume: as there.

    Returns:
        Whether this is the process that wrote the run folder. If that one fails, torchrun ends
        the others.

    Raises:
        OfrlError: as there.
        Terminated: SIGTERM stopped the run.
    """
    group = ProcessGroup.from_environment()
    if group.size == 1:
        loop.train(config, folder, resume)
        return True
    require_shareable(config, group.size)
    # Before they meet: one process per computer builds the replay cache, the others wait for its
    # lock. Having met, they would give up after nccl's ten minutes, or 40 GB of frames.
    data = open_data(config)
    make_learner = functools.partial(DistributedLearner, group=group, data=data)
    terminated: Optional[Terminated] = None
    with joined(group, config.train.device):
        try:
            if group.rank == 0:
                loop.train(config, folder, resume, make_learner=make_learner)
            else:
                _follow(config, folder, resume, make_learner)
        except Terminated as error:  # leave the context like the others do
            terminated = error
    if terminated is not None:
        raise terminated
    return group.rank == 0


class DistributedLearner(Learner):
    """A learner whose every update is one of all processes, which must be joined.

    Raises:
        ConfigError: settings with which several processes cannot train.
    """

    def __init__(
        self, config: RunConfig, group: ProcessGroup, data: Optional[TrainData] = None
    ) -> None:
        self._group = group
        self._fresh = True
        require_shareable(config, group.size)
        super().__init__(config, data)
        self._stream = StreamedData(self.data.buffer, self.algorithm.device)
        optimizers = self.algorithm.optimizers.values()
        groups = [g for optimizer in optimizers for g in optimizer.param_groups]
        trained = {id(p) for g in groups for p in g["params"]}
        for parameter in self.algorithm.parameters():
            if id(parameter) not in trained:  # e.g. a temperature that is not tuned
                parameter.requires_grad_(False)
        self._joint = DistributedDataParallel(
            self.algorithm, find_unused_parameters=config.algo_config.unused_parameters
        )

    def update(self) -> Dict[str, torch.Tensor]:
        """Do one gradient step in all processes; logged scalars are means over processes."""
        self._seed_noise()
        losses = self._joint(self._share())
        self.algorithm.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.algorithm.finish_step()
        self._validate()
        return self._mean(losses.metrics) if self.logs else losses.metrics

    @property
    def logs(self) -> bool:
        """Whether losses are logged at this step."""
        train = self.config.train
        return self.step % train.log_every == 0 or self.step == train.steps

    def stops(self, requested: bool) -> bool:
        """Return whether to stop, the same in all processes; they agree at logged steps."""
        if not self.logs:
            return False
        flag = torch.tensor(float(requested), device=self.algorithm.device)
        distributed.all_reduce(flag)
        return bool(flag > 0)

    def _make_graphed(self, device: torch.device) -> Optional[GraphedUpdate]:
        """Return None: a CUDA graph does not average gradients, so nothing is uploaded."""
        return None

    def _share(self) -> Batch:
        rank, size = self._group.rank, self._group.size
        rows = share(self.sampler.draw(), rank, size)
        self.data.buffer.prefetch(share(self.sampler.upcoming, rank, size))
        self._stream.stage(rows)
        return self._stream.batch()

    def _require_same_step(self) -> None:
        """Raise TrainingError, in all processes, if one has resumed from another state."""
        steps = torch.zeros(self._group.size, device=self.algorithm.device)
        steps[self._group.rank] = self.step
        distributed.all_reduce(steps)
        if len(set(steps.tolist())) > 1:
            found = ", ".join(f"{step:.0f}" for step in steps.tolist())
            raise TrainingError(
                f"the processes resume after different steps: {found}",
                "give all computers the same run folder",
            )

    def _seed_noise(self) -> None:
        """Give every process noise of its own; process 0 draws what a single one draws.

        The others are seeded again wherever a run can be saved (a checkpoint, or a logged step, at
        which SIGTERM stops it): the state holds process 0's generator only, and a resumed run must
        draw the same.
        """
        if self._fresh:
            self._require_same_step()
        elif self.step % self.config.train.checkpoint_every and not self.logs:
            return
        if self._group.rank:
            seed = [self.config.train.seed, self._group.rank, self.step]
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self._fresh = False

    def _mean(self, values: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        joint = torch.stack([value.float() for value in values.values()])
        distributed.all_reduce(joint)
        return dict(zip(values, joint / self._group.size))


def share(indices: Sequence[np.ndarray], rank: int, size: int) -> List[np.ndarray]:
    """Return every ``size``-th row of a batch from row ``rank`` on: int64 (B_k,) of each store."""
    own = []
    done = 0
    for index in indices:
        own.append(index[(rank - done) % size :: size])
        done += len(index)
    return own


def require_shareable(config: RunConfig, size: int) -> None:
    """Raise ConfigError for settings with which ``size`` processes cannot train together."""
    train = config.train
    if train.batch_size % size:
        raise ConfigError(
            f"batch_size {train.batch_size} cannot be divided among {size} processes",
            f"it counts for all processes together: give a multiple of {size}",
        )
    refusal = config.algo_config.distributed_refusal()
    if refusal:
        raise ConfigError(refusal, "train it without torchrun, or change that setting")
    if ":" in train.device:
        raise ConfigError(
            f"device {train.device} for all processes",
            "use --device cuda: each takes the GPU of its number",
        )


def _follow(
    config: RunConfig,
    folder: Path,
    resume: bool,
    make_learner: Callable[[RunConfig], DistributedLearner],
) -> None:
    """Train along with process 0, without writing or showing anything."""
    state = read_state(folder) if resume else None
    if state is not None and state.header.step == config.train.steps:
        return
    learner = make_learner(config)
    if state is not None:
        state.restore(learner)
    limit = value_limit(learner.algorithm)
    with stop_on_sigterm() as stop:
        while learner.step < config.train.steps:
            row = learner.update()
            if learner.logs and problems({k: float(v) for k, v in row.items()}, limit):
                return  # process 0 sees the same row and reports it
            if learner.step < config.train.steps and learner.stops(stop.requested):
                raise Terminated
