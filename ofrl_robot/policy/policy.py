"""Observation -> action, from one checkpoint file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, TypeVar

import numpy as np
import torch
from torch import nn

from ofrl_robot.control.signals import POLICY, Tick
from ofrl_robot.errors import CheckpointError, SpecMismatchError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.critic import Critic
from ofrl_robot.nets.distributions import ActionDistribution
from ofrl_robot.nets.sizes import actor_weights, critic_weights
from ofrl_robot.policy.checkpoint import ACTOR, CRITIC, checkpoint_hash, load_checkpoint, part
from ofrl_robot.policy.choice import MAX_Q, MODE, require_choice
from ofrl_robot.policy.features import LastFeatures
from ofrl_robot.policy.header import is_rate
from ofrl_robot.policy.origin import difference
from ofrl_robot.policy.picture_check import PictureCheck, PictureReport
from ofrl_robot.specs import STATE, ActionSpec, ObservationSpec, require_same

CANDIDATES = 10  # actions that "max_q" draws, as MaxQSoftPolicy of BRAC's released code does

_Network = TypeVar("_Network", bound=nn.Module)


class Policy:
    """A deployed policy.

    Args:
        path: checkpoint file.
        choice: how an action is taken from the policy's distribution. "mode": its mode; "sample":
            drawn; "max_q": of CANDIDATES drawn ones the one with the largest Q, by the first
            critic of the checkpoint (Wu et al. 2019, arXiv 1911.11361: their code).

    Raises:
        ConfigError: the choice is unknown.
        CheckpointError: the file is not a checkpoint, its weights do not fit its header, or it
            holds no critic for "max_q".
    """

    source = POLICY

    def __init__(self, path: Path, choice: str = MODE) -> None:
        self.path = path
        self.choice = require_choice(choice)
        self.header, weights = load_checkpoint(path)
        nets, shapes, action = self.header.nets, self.header.shapes, self.header.action_spec
        self._actor = self._load(
            part(weights, ACTOR),
            actor_weights(nets, shapes, action),
            lambda: Actor(nets, shapes, action),
        )
        self._critic: Optional[Critic] = None
        if choice == MAX_Q:
            if not part(weights, CRITIC):
                raise CheckpointError(
                    f"action choice max_q needs a critic, and this {self.header.algo} "
                    "checkpoint holds none",
                    "use action choice mode or sample",
                    path,
                )
            self._critic = self._load(
                part(weights, CRITIC),
                critic_weights(nets, shapes, action.size),
                lambda: Critic(nets, shapes, action.size),
            )
        self._generator = torch.Generator()
        summary = self.header.picture_summary()
        self._check: Optional[PictureCheck] = None
        if summary is not None:
            self._check = PictureCheck(summary)
            self._features = LastFeatures(self._actor)

    def _load(
        self, weights: Dict[str, torch.Tensor], claimed: int, make: Callable[[], _Network]
    ) -> _Network:
        """Build a network and give it its weights.

        Args:
            weights: of this network.
            claimed: number of weights that the header claims, at least. It is checked before the
                network is built: a small file must not make a robot's computer allocate gigabytes.
            make: builds the network.
        """
        try:
            held = sum(weight.numel() for weight in weights.values())
            if claimed > held:
                raise RuntimeError(f"{held} numbers, not {claimed}")
            network = make()
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"weights do not fit the networks in its header ({str(error).splitlines()[0]:.200};"
                f" observations: {', '.join(self.header.observe)})",
                "train again",
                self.path,
            ) from error
        return network.eval()

    def identity(self) -> Dict[str, Any]:
        """Return what is written into every episode that this policy makes."""
        return {
            "checkpoint": str(self.path),
            "sha256": checkpoint_hash(self.path),
            "algo": self.header.algo,
            "step": self.header.step,
            "action_choice": self.choice,
        }

    def require_specs(
        self,
        action: ActionSpec,
        observation: ObservationSpec,
        control_rate_hz: float,
        robot: str,
        task: str,
        any_task: bool = False,
    ) -> None:
        """Raise SpecMismatchError unless a robot fits this policy.

        Args:
            action, observation: specs of the robot: names, units, scales, frames, image pipeline.
            control_rate_hz: control rate of the robot.
            robot: name of the robot, for messages.
            task: task that the robot is to do.
            any_task: accept a policy that was trained on another task.
        """
        header = self.header
        fix = "deploy a checkpoint trained on this robot's data"
        rate = control_rate_hz
        if not is_rate(rate):
            raise SpecMismatchError(
                f"control rate of {robot} is {rate!r:.40}", "give a rate in Hz above 0"
            )
        if abs(rate - header.control_rate_hz) > 0.01 * rate:
            raise SpecMismatchError(
                f"control rate of {self.path} is {header.control_rate_hz:g} Hz "
                f"but that of {robot} is {rate:g} Hz",
                fix,
            )
        if task != header.task and not any_task:
            raise SpecMismatchError(
                f"{self.path} was trained on task {header.task!r:.80}, {robot} does {task!r:.80}",
                "deploy a checkpoint of this task, or allow any task",
            )
        require_same(header.action_spec, action, str(self.path), robot, fix)
        policy_name = f"{self.path} (which reads {', '.join(header.observe)})"
        require_same(header.observation_spec, observation, policy_name, robot, fix)

    def notes(self, environment: Mapping[str, Any], task: str) -> List[str]:
        """Say, a line each, what a person should know before this policy runs on a robot.

        Args:
            environment: settings of the robot, as an episode holds them.
            task: that it is to do.
        """
        header = self.header
        lines = [difference(header.environment, header.task, environment, task)]
        if self._check is None:
            lines.append(
                "the checkpoint has no summary of its training pictures (it is older, or its data "
                "has too few episodes): nobody compares the camera's pictures with them"
            )
        return [line for line in lines if line]

    @property
    def pictures(self) -> Optional[PictureReport]:
        """How far the running episode's pictures are from the training data; None if unknown."""
        return None if self._check is None else self._check.report

    @property
    def picture_failure(self) -> str:
        """Why comparing the pictures was given up; empty when it was not."""
        return "" if self._check is None else self._check.failure

    def remarks(self) -> Dict[str, Any]:
        """Return what an episode holds of its pictures: ``PictureReport.to_dict()``, or empty."""
        report = self.pictures
        return {} if report is None else report.to_dict()

    def reset(self, seed: int) -> None:
        """Start an episode. The seed fixes the actions of a policy that draws them."""
        self._generator.manual_seed(max(seed, 0))
        if self._check is not None:
            self._check.reset()

    def warm_up(self) -> None:
        """Run once, so that the first real action is not the slow one."""
        shapes = dict(self.header.shapes)
        state = np.zeros(shapes.pop(STATE, 0))
        images = {name: np.zeros(shape, np.uint8) for name, shape in shapes.items()}
        self.act(Tick(stamp_ns=0, step=0, images=images, state=state))

    @torch.inference_mode()
    def act(self, tick: Tick) -> np.ndarray:
        """Return the action float64 (A,) in (-1, 1) for the cameras and the state of ``tick``."""
        observations = {}
        for name in self.header.observe:
            if name == STATE:
                values = np.array(tick.state, np.float32)
            else:
                # a copy: frames from a socket are read-only, which torch warns about
                values = np.array(tick.images[name])
            observations[name] = torch.from_numpy(values).unsqueeze(0)
        action = self._chosen(self._actor(observations), observations)[0].double().numpy()
        if self._check is not None and self._check.due(tick.step):
            self._check.take(tick.step, self._features.newest[0].numpy(), tick.images)
        return action

    def _chosen(
        self, dist: ActionDistribution, observations: Dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return one action (1, A) for observations of batch size 1."""
        if self.choice == MODE:
            return dist.mode
        if self._critic is None:
            return dist.sample(1, self._generator)[0][:, 0]
        actions = dist.sample(CANDIDATES, self._generator)[0]
        q = self._critic.q(self._critic.encode(observations), actions)[0]  # of the first critic
        return actions[0, q.argmax(-1)]
