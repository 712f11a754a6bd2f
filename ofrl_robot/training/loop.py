"""Trains one algorithm and writes the run folder, from the start or from where it was killed."""

from __future__ import annotations

import contextlib
import math
import shutil
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import torch
from safetensors import SafetensorError

from ofrl_robot.errors import CheckpointError, ConfigError, TrainingError
from ofrl_robot.policy.checkpoint import save_checkpoint
from ofrl_robot.training import run_folder
from ofrl_robot.training.config import RunConfig, config_differences
from ofrl_robot.training.display import Display, Terminal
from ofrl_robot.training.health import non_finite_weights, problems, value_limit
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.metric_log import MetricLog, import_wandb
from ofrl_robot.training.state import State, read_state, save_state


def train(
    config: RunConfig,
    folder: Path,
    resume: bool = False,
    display: Optional[Display] = None,
    make_learner: Callable[[RunConfig], Learner] = Learner,
) -> Path:
    """Run the whole training; returns the run folder.

    Args:
        resume: go on with the run in ``folder`` from its last checkpoint, or from the beginning
            where it has none. Its config must be the same, but for more steps.
        display: where to show progress, by default the terminal.
        make_learner: how to build what trains.

    Raises OfrlError before anything is written where it cannot be trained, TrainingError where it
    diverges or the disk refuses. However it ends, its checkpoints so far are kept.
    """
    display = display or Terminal()
    if config.train.wandb:
        import_wandb()
    learner = None
    if not resume:
        run_folder.require_new(folder)
        learner = make_learner(config)
        run_folder.create_run(folder, config.to_dict())
    with run_folder.one_trainer(folder):
        if resume:
            learner = _resumed(config, folder, display, make_learner)
        if learner is not None:
            _Loop(learner, folder, display).run()
    return folder


def _resumed(
    config: RunConfig,
    folder: Path,
    display: Display,
    make_learner: Callable[[RunConfig], Learner],
) -> Optional[Learner]:
    """The learner where the run stood, what lies beyond that dropped; None where it is finished."""
    state = read_state(folder)
    require_same_config(folder, config, state)
    if state is None:
        _require_no_work(folder)
        learner = make_learner(config)
    elif state.header.step == config.train.steps:
        display.say(f"finished: all {state.header.step} steps are done; --steps MORE trains on")
        return None
    else:
        learner = make_learner(config)
        state.restore(learner)
        if state.header.torch_version != torch.__version__:
            versions = state.header.torch_version, torch.__version__
            display.say("torch was {}, now {}: numbers may differ from here on".format(*versions))
    run_folder.rewind(folder, learner.step)
    run_folder.write_config(folder, config.to_dict())
    display.say(f"resumed after step {learner.step}")
    return learner


def require_same_config(folder: Path, config: RunConfig, state: Optional[State]) -> None:
    """Raise ConfigError with what differs, unless ``config`` is that of the run or asks for more
    steps."""
    old = run_folder.read_config(folder) if state is None else state.header.config
    differing = config_differences(old, config.to_dict())
    if config.train.steps > old.get("train", {}).get("steps", math.inf):
        differing.pop("steps")
    if differing:
        raise ConfigError(
            "the run began with other settings (then != now): {}".format(
                ", ".join("{} {} != {}".format(name, *pair) for name, pair in differing.items())
            ),
            "give the same, or train under another --name",
            folder,
        )


def _require_no_work(folder: Path) -> None:
    """Refuse to begin a run anew whose state is lost: that would drop its checkpoints."""
    steps = run_folder.checkpoint_steps(folder)
    if len(steps) > 1:  # one may lie there already when a run dies at its first checkpoint
        raise CheckpointError(
            f"{len(steps)} checkpoints but no state to go on from",
            "train again under another --name",
            folder,
        )


class _Loop:
    def __init__(self, learner: Learner, folder: Path, display: Display) -> None:
        self._learner, self._folder, self._display = learner, folder, display
        self._limit = value_limit(learner.algorithm)

    def run(self) -> None:
        learner, config = self._learner, self._learner.config
        train = config.train
        self._display.say(self._sizes())
        self._log = MetricLog(self._folder, learner.step, train.wandb, config.to_dict())
        self._display.start(config.algo, learner.step, train.steps)
        try:
            while learner.step < train.steps:
                values = learner.update()
                last = learner.step == train.steps
                if last or learner.step % train.log_every == 0:
                    self._losses({name: float(value) for name, value in values.items()})
                if last or learner.step % train.checkpoint_every == 0:
                    self._checkpoint()
        except KeyboardInterrupt:
            self._display.say(f"interrupted; --resume goes on from {self._last_checkpoint()}")
            raise
        finally:
            self._display.stop()
            self._log.close()

    def _losses(self, row: Dict[str, float]) -> None:
        self._require_sound(problems(row, self._limit))
        with self._writing():
            self._log.write("train", self._learner.step, row)
        self._display.losses(self._learner.step, row)

    def _checkpoint(self) -> None:
        learner, step = self._learner, self._learner.step
        metrics = learner.measure()
        self._require_sound(problems(metrics, self._limit))
        self._require_sound([f"{n} is not finite" for n in non_finite_weights(learner.algorithm)])
        # The state comes last: a run killed before it goes on from the one before, and makes
        # the rest anew.
        with self._writing():
            path = run_folder.checkpoint_path(self._folder, step)
            save_checkpoint(path, learner.header(metrics), learner.weights())
            self._log.write("probe", step, metrics)
            self._log.flush()
            save_state(self._folder, learner)
        self._display.checkpoint(step, metrics)

    def _require_sound(self, problems: List[str]) -> None:
        if problems:
            raise TrainingError(
                "diverged at step {}: {}; last good checkpoint: {}".format(
                    self._learner.step, ", ".join(problems[:4]), self._last_checkpoint()
                ),
                "lower the learning rates and train under another --name",
                self._folder,
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"cannot be written at step {self._learner.step} ({error})",
                f"free space, then --resume; last good checkpoint: {self._last_checkpoint()}",
                self._folder,
            ) from error

    def _last_checkpoint(self) -> str:
        steps = run_folder.checkpoint_steps(self._folder)
        return run_folder.checkpoint_path(self._folder, steps[-1]).name if steps else "none"

    def _sizes(self) -> str:
        """What the checkpoints will take."""
        train = self._learner.config.train
        count = -(-train.steps // train.checkpoint_every)
        size = sum(tensor.nbytes for tensor in self._learner.weights().values()) / 1e6
        free = shutil.disk_usage(str(self._folder)).free / 1e6
        return (
            f"checkpoints: {count} of {size:.2f} MB, all kept: {count * size:.0f} MB of "
            f"{free:.0f} MB free"
        )
