"""Train one algorithm and write the run folder, from the start or from the last checkpoint."""

from __future__ import annotations

import contextlib
import math
import shutil
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import torch
from safetensors import SafetensorError

from ofrl_robot.errors import CheckpointError, ConfigError, OutputError, TrainingError
from ofrl_robot.policy.checkpoint import save_checkpoint
from ofrl_robot.training import run_folder
from ofrl_robot.training.config import RunConfig, config_differences
from ofrl_robot.training.display import Display, default_display
from ofrl_robot.training.health import non_finite_weights, problems, value_limit
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.metric_log import MetricLog, import_wandb
from ofrl_robot.training.resolved import changes, read_resolved, take_threads, write_resolved
from ofrl_robot.training.state import State, read_state, save_state
from ofrl_robot.training.stopping import Terminated, stop_on_sigterm


def train(
    config: RunConfig,
    folder: Path,
    resume: bool = False,
    display: Optional[Display] = None,
    make_learner: Callable[[RunConfig], Learner] = Learner,
) -> Path:
    """Run the whole training; return the run folder.

    Args:
        config: of the run.
        folder: of the run; must not exist unless ``resume``.
        resume: continue the run in ``folder`` from its last checkpoint, or from the beginning if
            it has none. Its config must be the same, except for more steps.
        display: where to show progress, by default standard output.
        make_learner: builds what trains.

    Raises:
        OfrlError: it cannot be trained; nothing was written.
        TrainingError: it diverged, or the disk refuses. Checkpoints so far are kept.
        Terminated: SIGTERM stopped it after a last checkpoint.
    """
    display = display or default_display()
    if config.train.wandb:
        import_wandb()
    if not resume:
        run_folder.require_new(folder)
    display.say(f"training {config.algo} on {config.dataset} for {config.train.steps} steps")
    learner: Optional[Learner] = None
    if not resume:
        learner = make_learner(config)
        _require_space(learner, folder)
        run_folder.create_run(folder, config.to_dict())
        write_resolved(folder, learner.resolved)
    with run_folder.one_trainer(folder):
        if resume:
            learner = _resumed(config, folder, display, make_learner)
        if learner is not None:
            Trainer(learner, folder, display).run()
    return folder


def require_same_config(folder: Path, config: RunConfig, state: Optional[State]) -> None:
    """Raise ConfigError with what differs from the run's config; more steps are allowed.

    Args:
        folder: of the run.
        config: to resume it with.
        state: of the run, if it has one. It knows the data by its content, so the paths of the
            datasets may differ.
    """
    old = run_folder.read_config(folder) if state is None else state.header.config
    differing = config_differences(old, config.to_dict())
    if config.train.steps > old.get("train", {}).get("steps", math.inf):
        differing.pop("steps")
    if state is not None:
        differing.pop("dataset", None)
        if None not in differing.get("prior", ()):
            differing.pop("prior", None)
    if differing:
        found = ", ".join(f"{name} {then} != {now}" for name, (then, now) in differing.items())
        raise ConfigError(
            f"the run began with other settings (then != now): {found}",
            "give the same, or train under another --name",
            folder,
        )


def _resumed(
    config: RunConfig,
    folder: Path,
    display: Display,
    make_learner: Callable[[RunConfig], Learner],
) -> Optional[Learner]:
    """Restore the learner from the last checkpoint and delete output written after it.

    Returns None if the run is already finished.
    """
    state = read_state(folder)
    require_same_config(folder, config, state)
    if state is None:
        _require_no_work(folder)
        learner = make_learner(config)
    elif state.header.step == config.train.steps:
        display.say(
            f"finished: all {state.header.step} steps are done; use --steps to train longer"
        )
        return None
    else:
        learner = make_learner(config)
        state.restore(learner)
        began = read_resolved(folder)
        take_threads(config.train.threads, began)
        for line in changes(began, learner.resolved):
            display.say(line)
        if state.header.torch_version != torch.__version__:
            display.say(
                f"torch was {state.header.torch_version}, now {torch.__version__}: numbers may "
                "differ from here on"
            )
    _require_space(learner, folder)
    run_folder.rewind(folder, learner.step)
    run_folder.write_config(folder, config.to_dict())
    display.say(f"resumed after step {learner.step}")
    return learner


def _require_no_work(folder: Path) -> None:
    """Refuse to restart a run whose state is lost: that would delete its checkpoints."""
    steps = run_folder.checkpoint_steps(folder)
    if len(steps) > 1:  # there may be one if a run was killed at its first checkpoint
        raise CheckpointError(
            f"{len(steps)} checkpoints but no state to resume from",
            "train again under another --name",
            folder,
        )


class Trainer:
    """The training loop of one run.

    Args:
        learner: what is trained, at the step where to begin.
        folder: of the run.
        display: where to show progress.
    """

    def __init__(self, learner: Learner, folder: Path, display: Display) -> None:
        self._learner = learner
        self._folder = folder
        self._display = display
        self._limit = value_limit(learner.algorithm)

    def run(self) -> None:
        """Train to the end.

        Raises:
            TrainingError: it diverged, or the disk refuses.
            Terminated: SIGTERM stopped it after a last checkpoint.
        """
        learner = self._learner
        config = learner.config
        self._display.say(_sizes(learner, self._folder))
        self._log = MetricLog(self._folder, learner.step, config.train.wandb, config.to_dict())
        self._display.start(config.algo, learner.step, config.train.steps)
        try:
            with stop_on_sigterm() as stop:
                while learner.step < config.train.steps:
                    saved = self._step()
                    unfinished = learner.step < config.train.steps
                    if unfinished and learner.stops(stop.requested):
                        self._terminate(saved)
        except KeyboardInterrupt:
            self._display.say(f"interrupted; --resume continues from {self._last_checkpoint()}")
            raise
        finally:
            self._display.stop()
            self._log.close()

    def _step(self) -> bool:
        """Do one step with all that belongs to it; return whether it ended in a checkpoint."""
        learner = self._learner
        train = learner.config.train
        values = learner.update()
        last = learner.step == train.steps
        if last or learner.step % train.log_every == 0:
            self._losses({name: float(value) for name, value in values.items()})
        saves = last or learner.step % train.checkpoint_every == 0
        if saves:
            self._checkpoint()
        self._display.progress(learner.step)
        return saves

    def _terminate(self, saved: bool) -> None:
        if not saved:
            self._checkpoint()
        self._display.say(
            f"stopped by SIGTERM after step {self._learner.step}; "
            f"continue with: ofrl train --resume {self._folder}"
        )
        raise Terminated

    def _losses(self, row: Dict[str, float]) -> None:
        self._require_sound(problems(row, self._limit))
        with self._writing():
            self._log.write("train", self._learner.step, row)
        self._display.losses(self._learner.step, row)

    def _checkpoint(self) -> None:
        learner = self._learner
        step = learner.step
        metrics = learner.measure()
        self._require_sound(problems(metrics, self._limit))
        self._require_sound([f"{n} is not finite" for n in non_finite_weights(learner.algorithm)])
        # The state comes last: a run killed before that resumes from the state before, and writes
        # the rest again.
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
                f"diverged at step {self._learner.step}: {', '.join(problems[:4])}; "
                f"last good checkpoint: {self._last_checkpoint()}",
                "lower the learning rates and train under another --name",
                self._folder,
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, OutputError, SafetensorError) as error:
            reason = error.what if isinstance(error, OutputError) else error
            raise TrainingError(
                f"cannot be written at step {self._learner.step} ({reason})",
                f"free space, then --resume; last good checkpoint: {self._last_checkpoint()}",
                self._folder,
            ) from error

    def _last_checkpoint(self) -> str:
        steps = run_folder.checkpoint_steps(self._folder)
        return run_folder.checkpoint_path(self._folder, steps[-1]).name if steps else "none"


# -- disk space --------------------------------------------------------------------------------


def _require_space(learner: Learner, folder: Path) -> None:
    """Raise OutputError if the checkpoints still to come cannot fit on the disk."""
    train = learner.config.train
    count = -(-train.steps // train.checkpoint_every) - learner.step // train.checkpoint_every
    size = _checkpoint_mb(learner)
    free = _free_mb(folder)
    if count * size > free:
        raise OutputError(
            f"{count} checkpoints of {size:.2f} MB take {count * size:.0f} MB, "
            f"{free:.0f} MB are free",
            "raise --checkpoint-every, lower --steps, free space or choose another --out",
            folder,
        )


def _sizes(learner: Learner, folder: Path) -> str:
    """Return a line that says how large the checkpoints will be."""
    train = learner.config.train
    count = -(-train.steps // train.checkpoint_every)
    size = _checkpoint_mb(learner)
    return (
        f"checkpoints: {count} of {size:.2f} MB, all kept: {count * size:.0f} MB of "
        f"{_free_mb(folder):.0f} MB free"
    )


def _checkpoint_mb(learner: Learner) -> float:
    return sum(tensor.nbytes for tensor in learner.weights().values()) / 1e6


def _free_mb(folder: Path) -> float:
    existing = next(path for path in [folder, *folder.resolve().parents] if path.exists())
    return shutil.disk_usage(existing).free / 1e6
