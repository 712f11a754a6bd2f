"""A training run small enough for tests; as a program, one that is killed again and again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
from pathlib import Path

from ofrl_robot.algos.configs.bc import BCConfig
from ofrl_robot.algos.configs.brac import BRACConfig
from ofrl_robot.algos.configs.cql import CQLConfig
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.training import loop, run_folder
from ofrl_robot.training.config import RunConfig, TrainConfig
from ofrl_robot.training.display import Display
from ofrl_robot.training.learner import Learner

TRAIN = TrainConfig(
    steps=7, batch_size=8, checkpoint_every=3, probe_size=20, log_every=2, threads=1,
    precision="fp32",
)  # fmt: skip
NETS = NetConfig(latent=8, hidden=(16,))
HYPER = {
    "bc": BCConfig(),
    "cql": CQLConfig(discount=0.9, warm_start_steps=2),
    "brac": BRACConfig(discount=0.9, warm_start_steps=2),
}


def config(dataset, algo="cql", algo_config=None, nets=NETS, prior=None, **changes):
    train = dataclasses.replace(TRAIN, **changes)
    return RunConfig(Path(dataset), algo, algo_config or HYPER[algo], nets, train, prior)


class StopAt(Display):
    """Interrupts the run after the checkpoint of that step; keeps the lines shown."""

    def __init__(self, step=None):
        self.step, self.said = step, []

    def say(self, line):
        self.said.append(line)

    def checkpoint(self, step, metrics):
        if step == self.step:
            raise KeyboardInterrupt


def stopped(chosen, folder, step=3):
    """A run that was interrupted at that checkpoint."""
    with contextlib.suppress(KeyboardInterrupt):
        loop.train(chosen, folder, display=StopAt(step))
    return folder


# -- the program ------------------------------------------------------------------------------

LONG = {"steps": 12, "checkpoint_every": 4, "nets": dataclasses.replace(NETS, dropout=0.1)}
# Where each attempt is killed: a function, the number of its call, and where in it. Each attempt
# resumes the one before.
KILLS = [
    ("update", 3, "before"),  # ahead of the first checkpoint
    ("save_checkpoint", 1, "after"),  # the file is there, its row of metrics.csv is not
    ("save_state", 1, "before"),  # the row is there, the state is not: all from the beginning
    ("replace_state", 2, "before"),  # state of step 4 whole, that of step 8 not yet in place
    ("write_row", 1, "amid"),  # half a row of train.csv
    ("save_state", 1, "after"),  # step 8 is all there
    ("update", 2, "before"),
]


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(owner, name, count, moment, counts=lambda *args: True):
    """Have this process killed at the ``count``-th call of owner.name."""
    real, calls = getattr(owner, name), []

    def killing(*args):
        calls.append(counts(*args))
        last = sum(calls) == count and calls[-1]
        if last and moment == "before":
            kill_self()
        result = real(*args)
        if last:
            kill_self()
        return result

    setattr(owner, name, killing)


def kill_amid_row(count):
    def half(log, step, values):
        log._file.write(f"{step},0.12")
        log._file.flush()
        kill_self()

    left, real = [count], run_folder.CsvLog.write

    def write(*args):
        left[0] -= 1
        (real if left[0] else half)(*args)

    run_folder.CsvLog.write = write


def attempt(data, folder, resume, kill=None):
    if kill is not None:
        name, count, moment = kill
        if moment == "amid":
            kill_amid_row(count)
        elif name == "update":
            kill_at(Learner, name, count, moment)
        elif name == "replace_state":
            disk = sys.modules["ofrl_robot.files"]
            kill_at(disk, "replace", count, moment, lambda a, b: b.name == "state.safetensors")
        else:
            kill_at(loop, name, count, moment)
    loop.train(config(data, **LONG), Path(folder), resume)


def in_child(*args):
    """Run :func:`attempt` in a process of its own; returns its signal or exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            attempt(*args)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


if __name__ == "__main__":
    import torch.utils.tensorboard  # imported once for all children, as what an optimiser needs

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])

    data, unbroken, broken = sys.argv[1:]
    codes = [in_child(data, unbroken, False)]
    codes += [in_child(data, broken, k > 0, kill) for k, kill in enumerate(KILLS)]
    codes.append(in_child(data, broken, True))
    print(codes)
