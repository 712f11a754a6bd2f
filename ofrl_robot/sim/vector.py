"""Several environments at once, each in a process of its own, behind gymnasium's vector API."""

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

    ``reset(seed=s)`` gives environment i seed ``s + i``; a list gives each its own. An episode
    that ended is reset by the next ``step``, which ignores that environment's action and
    returns reward 0 (gymnasium's ``AutoresetMode.NEXT_STEP``); such resets draw on from the
    seed of the last explicit one. Observations are those of
    :class:`~ofrl_robot.sim.env.WidowXEnv` with a leading axis of size ``n``.

    Processes are spawned: a script that uses them needs ``if __name__ == "__main__":``.

    Args:
        task_id: one of ``ofrl_robot.sim.TASK_IDS`` (the ``ofrl_robot/`` prefix may be there).
        n: how many, 1 or more.
        processes: one process for each; False keeps all of them in this one.
        **kwargs: those of :class:`~ofrl_robot.sim.env.WidowXEnv`.

    Raises:
        ConfigError: unknown task, ``n`` below 1, or what a single environment refuses.

    A batch of actions of the wrong shape, or not finite, is a RobotError before anything moves.
    After any other error in ``reset`` or ``step`` the vector is closed.
    """
    if not n >= 1:
        raise ConfigError(f"n {n} is below 1", "ask for 1 environment or more")
    task = find(task_id).spec.id
    from ofrl_robot.sim.env import WidowXEnv

    build = functools.partial(WidowXEnv, task, **kwargs)
    return Guarded(_in_processes(build, n) if processes else _in_this_process(build, n))


def _in_processes(build: Callable[[], WidowXEnv], n: int) -> gymnasium.vector.VectorEnv:
    try:
        return gymnasium.vector.AsyncVectorEnv([build] * n, context="spawn")
    except (EOFError, ConnectionError) as error:
        raise RobotError(
            "the process of an environment did not start",
            'put what your script does under `if __name__ == "__main__":`',
        ) from error


def _in_this_process(build: Callable[[], WidowXEnv], n: int) -> gymnasium.vector.VectorEnv:
    built: List[WidowXEnv] = []
    try:
        for _ in range(n):
            built.append(build())
    except Exception:
        for env in built:  # roboverse refuses a second one: the first must not stay open
            env.close()
        raise
    return gymnasium.vector.SyncVectorEnv(
        [functools.partial(built.__getitem__, i) for i in range(n)]
    )


class Guarded(gymnasium.vector.VectorWrapper):
    """Checks the actions first and closes everything after an error.

    Without it a vector would be half-alive: some environments moved while another refused, or
    the process of one gone and the answers of the others still in their pipes.
    """

    def reset(
        self, *, seed: Any = None, options: Optional[Dict[str, Any]] = None
    ) -> Tuple[Any, Dict[str, Any]]:
        return self._or_closed(lambda: self.env.reset(seed=seed, options=options))

    def step(self, actions: np.ndarray) -> Tuple[Any, Any, Any, Any, Dict[str, Any]]:
        batch = self._checked(actions)
        return self._or_closed(lambda: self.env.step(batch))

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        expected = self.env.action_space.shape
        try:
            batch = np.asarray(actions, np.float64)
        except (TypeError, ValueError) as error:
            raise RobotError(f"the actions are not numeric ({error})") from error
        if batch.shape != expected:
            raise RobotError(f"the actions have shape {batch.shape}", f"send {expected}")
        bad = np.flatnonzero(~np.isfinite(batch).all(axis=1)).tolist()
        if bad:
            raise RobotError(
                f"the actions of environments {bad} are not finite",
                "send numbers in [-1, 1]",
            )
        return batch

    def _or_closed(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BaseException as error:
            self._end()
            if isinstance(error, (EOFError, ConnectionError)):
                raise RobotError(
                    "the process of an environment died", "make a new vector environment"
                ) from error
            raise

    def _end(self) -> None:
        """Close without waiting for anybody's answer, as gymnasium's own close would."""
        processes = getattr(self.env, "processes", None)
        if processes is None:
            self.env.close()
            return
        for process in processes:
            process.kill()
            process.join()
        self.env.closed = True
