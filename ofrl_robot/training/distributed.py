"""One run in several processes that torchrun started, each with its share of every batch.

    torchrun --nproc-per-node 2 -m ofrl_robot.cli train DATASET ...

All draw the same joint batch and compute on their own rows of it; torch's DistributedDataParallel
averages the gradients. Losses are means over rows, so these are the gradients of one process with
the joint batch, and all have the same weights at any time. Process 0 alone writes, probes and
shows; the others follow it from step to step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ofrl_robot.algos.config import ActorCriticConfig, BRACConfig
from ofrl_robot.data.replay.sampler import gather
from ofrl_robot.errors import ConfigError, TrainingError
from ofrl_robot.training import loop
from ofrl_robot.training.config import RunConfig
from ofrl_robot.training.health import problems, value_limit
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.state import read_state


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes that train together, and which of them this is.

    Attributes:
        rank: number of this process, from 0. size: processes.
        local_rank: number of this process on its computer, which is that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @staticmethod
    def of_environment() -> "Team":
        """As torchrun says; a team of one where there is no torchrun."""
        names = "RANK", "WORLD_SIZE", "LOCAL_RANK"
        if not all(name in os.environ for name in names):
            return Team()
        return Team(*(int(os.environ[name]) for name in names))


def train(config: RunConfig, folder: Path, resume: bool = False) -> bool:
    """As :func:`ofrl_robot.training.loop.train`, in all processes of torchrun where it is theirs.

    Returns whether this is the process that wrote the run folder. Where that one fails, torchrun
    ends the others.
    """
    team = Team.of_environment()
    if team.size == 1:
        loop.train(config, folder, resume)
        return True
    with joined(team, config.train.device):
        if team.rank == 0:
            make_learner = functools.partial(DistributedLearner, team=team)
            loop.train(config, folder, resume, make_learner=make_learner)
        else:
            _follow(config, folder, resume, team)
    return team.rank == 0


class DistributedLearner(Learner):
    """A learner whose every update is one of the whole team, which must be joined.

    Raises ConfigError for settings that a team cannot train with.
    """

    def __init__(self, config: RunConfig, team: Team) -> None:
        self._team, self._fresh = team, True
        require_shareable(config, team.size)
        # One process a computer goes first: it builds the frame cache, and says what is wrong.
        if team.local_rank:
            distributed.barrier()
        super().__init__(config)
        if not team.local_rank:
            distributed.barrier()
        trained = {id(p) for g in self.algorithm.optimizer.param_groups for p in g["params"]}
        for parameter in self.algorithm.parameters():
            if id(parameter) not in trained:  # a temperature that is not tuned: none waits for it
                parameter.requires_grad_(False)
        # The behaviour policy of BRAC has no gradient after the warm start.
        self._joint = DistributedDataParallel(
            self.algorithm, find_unused_parameters=isinstance(config.algo_config, BRACConfig)
        )

    def update(self) -> Dict[str, torch.Tensor]:
        """One gradient step of all; scalars are the team's where they are logged."""
        if self._fresh:
            self._require_same_step()
        self._part_noise()
        losses = self._joint(self.algorithm.load(self._share()))
        self.algorithm.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.algorithm.finish_step()
        return self._mean(losses.metrics) if self.logs else losses.metrics

    @property
    def logs(self) -> bool:
        """Whether losses are logged at this step."""
        train = self.config.train
        return self.step % train.log_every == 0 or self.step == train.steps

    def _share(self):
        algo_config, returns = self.config.algo_config, {}
        if isinstance(algo_config, ActorCriticConfig):
            returns = {"n": algo_config.n_step, "discount": algo_config.discount}
        rows = share(self.sampler.draw(), self._team.rank, self._team.size)
        return gather(self.data.stores, rows, **returns)

    def _require_same_step(self) -> None:
        """Raise TrainingError, in all processes, where one has resumed from another state."""
        steps = torch.zeros(self._team.size, device=self.algorithm.device)
        steps[self._team.rank] = self.step
        distributed.all_reduce(steps)
        if len(set(steps.tolist())) > 1:
            raise TrainingError(
                "the processes resume after different steps: {}".format(
                    ", ".join(f"{step:.0f}" for step in steps.tolist())
                ),
                "give all computers the same run folder",
            )

    def _part_noise(self) -> None:
        """Have every process draw noise of its own, process 0 that which a single one draws.

        Anew after every checkpoint, so that a resumed run, which has stored process 0's place
        only, draws the same.
        """
        if self._fresh or self.step % self.config.train.checkpoint_every == 0:
            if self._team.rank:
                seed = [self.config.train.seed, self._team.rank, self.step]
                torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            self._fresh = False

    def _mean(self, values: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        joined = torch.stack([value.float() for value in values.values()])
        distributed.all_reduce(joined)
        return dict(zip(values, joined / self._team.size))


def share(indices: Sequence[np.ndarray], rank: int, size: int) -> List[np.ndarray]:
    """Every ``size``-th row of a batch from row ``rank`` on: int64 (B_k,) of each store."""
    own, done = [], 0
    for index in indices:
        own.append(index[(rank - done) % size :: size])
        done += len(index)
    return own


def require_shareable(config: RunConfig, size: int) -> None:
    """Raise ConfigError for what ``size`` processes cannot do together."""
    train = config.train
    if train.batch_size % size:
        raise ConfigError(
            f"batch_size {train.batch_size} cannot be divided among {size} processes",
            f"it is that of all together: give a multiple of {size}",
        )
    if isinstance(config.algo_config, BRACConfig) and config.algo_config.divergence_form == "dual":
        raise ConfigError(
            "BRAC's dual form does not train in several processes",
            "use --divergence-form primal, or leave torchrun away",
        )
    if ":" in train.device:
        raise ConfigError(
            f"device {train.device} for all processes",
            "use --device cuda: each takes the GPU of its number",
        )


def _follow(config: RunConfig, folder: Path, resume: bool, team: Team) -> None:
    """What :func:`loop.train` does in process 0, without its folder, probes and display."""
    state = read_state(folder) if resume else None
    if state is not None and state.header.step == config.train.steps:
        return
    learner = DistributedLearner(config, team)
    if state is not None:
        state.restore(learner)
    limit = value_limit(learner.algorithm)
    while learner.step < config.train.steps:
        row = learner.update()
        if learner.logs and problems({k: float(v) for k, v in row.items()}, limit):
            return  # process 0 sees the same row, and says it


@contextlib.contextmanager
def joined(team: Team, device: str) -> Iterator[None]:
    on_gpu = device.startswith("cuda")
    try:
        if on_gpu:
            torch.cuda.set_device(team.local_rank)
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError, AssertionError) as error:
        raise TrainingError(
            f"process {team.rank} of {team.size} cannot join the others ({str(error).splitlines()[0]})",
            "with --device cuda start no more processes than a computer has GPUs",
        ) from error
    try:
        yield
        distributed.barrier()  # torch aborts in a process whose peers are still connected
    finally:
        distributed.destroy_process_group()
