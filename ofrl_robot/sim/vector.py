"""Run several environments at once, each in its own process, behind gymnasium's vector API."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

import gymnasium.vector
import numpy as np

from ofrl_robot.errors import ConfigError, RobotError
from ofrl_robot.sim.tasks import find

if TYPE_CHECKING:  # naming the tasks must not load the physics engine
    from ofrl_robot.sim.env import WidowXEnv


def make_vec(
    task_id: str, n: int, processes: bool = True, **kwargs: Any
) -> gymnasium.vector.VectorEnv:
    """Build ``n`` environments of one task that are reset and stepped together.

    ``reset(seed=s)`` gives environment i the seed ``s + i``; a list gives each its own. An episode
    that ended is reset by the next ``step``, which ignores that environment's action and
    returns reward 0 (gymnasium's ``AutoresetMode.NEXT_STEP``); such a reset continues the random
    stream of the last explicit seed. Observations are those of
    :class:`~ofrl_robot.sim.env.WidowXEnv` with a leading axis of size ``n``.

    Processes are spawned: a script that uses them needs ``if __name__ == "__main__":``.

    Args:
        task_id: one of ``ofrl_robot.sim.TASK_IDS`` (the ``ofrl_robot/`` prefix may be there).
        n: number of environments, 1 or more.
        processes: run each in its own process; False runs all of them in this one.
        **kwargs: arguments of :class:`~ofrl_robot.sim.env.WidowXEnv`.

    Raises:
        ConfigError: unknown task, ``n`` below 1, or an argument that the environment refuses.

    ``step`` raises RobotError before anything moves when the actions have a wrong shape or are not
    finite. After any other error in ``reset`` or ``step`` the vector is closed.
    """
    if not n >= 1:
        raise ConfigError(f"n {n} is below 1", "use 1 or more")
    task = find(task_id).spec.id
    from ofrl_robot.sim.env import WidowXEnv

    build = functools.partial(WidowXEnv, task, **kwargs)
    return CheckedVector(_in_processes(build, n) if processes else _in_this_process(build, n))


def _in_processes(build: Callable[[], WidowXEnv], n: int) -> gymnasium.vector.VectorEnv:
    try:
        return gymnasium.vector.AsyncVectorEnv([build] * n, context="spawn")
    except (EOFError, ConnectionError) as error:
        raise RobotError(
            "the process of an environment did not start",
            'put the code of your script under `if __name__ == "__main__":`',
        ) from error


def _in_this_process(build: Callable[[], WidowXEnv], n: int) -> gymnasium.vector.VectorEnv:
    built: List[WidowXEnv] = []
    try:
        for _ in range(n):
            built.append(build())
    except Exception:
        for env in built:  # roboverse refuses a second one; the first must be closed
            env.close()
        raise
    return gymnasium.vector.SyncVectorEnv(
        [functools.partial(built.__getitem__, i) for i in range(n)]
    )


class CheckedVector(gymnasium.vector.VectorWrapper):
    """A vector that checks the actions first and closes everything after an error.

    Without it, after an error, some environments would have moved and others not, or one process
    would have ended while the answers of the others wait in their pipes.
    """

    def reset(
        self, *, seed: Any = None, options: Optional[Dict[str, Any]] = None
    ) -> Tuple[Any, Dict[str, Any]]:
        """Reset all environments; see :func:`make_vec`."""
        return self._call_or_close(lambda: self.env.reset(seed=seed, options=options))

    def step(self, actions: np.ndarray) -> Tuple[Any, Any, Any, Any, Dict[str, Any]]:
        """Step all environments with a batch of actions (n, 8); see :func:`make_vec`."""
        batch = self._check_actions(actions)
        return self._call_or_close(lambda: self.env.step(batch))

    def _check_actions(self, actions: np.ndarray) -> np.ndarray:
        expected = self.env.action_space.shape
        try:
            batch = np.asarray(actions, np.float64)
        except (TypeError, ValueError) as error:
            raise RobotError(
                f"the actions are not numeric ({error})", "send numbers in [-1, 1]"
            ) from error
        if batch.shape != expected:
            raise RobotError(f"the actions have shape {batch.shape}", f"send {expected}")
        bad = np.flatnonzero(~np.isfinite(batch).all(axis=1)).tolist()
        if bad:
            raise RobotError(
                f"the actions of environments {bad} are not finite",
                "send numbers in [-1, 1]",
            )
        return batch

    def _call_or_close(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BaseException as error:
            self._end()
            if isinstance(error, (EOFError, ConnectionError)):
                raise RobotError(
                    "the process of an environment has ended", "make a new vector environment"
                ) from error
            raise

    def _end(self) -> None:
        """Kill all processes without waiting for their answers, unlike gymnasium's own close."""
        processes = getattr(self.env, "processes", None)
        if processes is None:
            self.env.close()
            return
        for process in processes:
            process.kill()
            process.join()
        self.env.closed = True
