"""What each process of a team does in test_distributed.py: gradients, then runs by command line.

As a program: team.py DATASET FOLDER; alone, or started by torchrun.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from unittest import mock

import safetensors.torch
import torch

from ofrl_robot.cli import main
from ofrl_robot.training.distributed import DistributedLearner, Team, joined
from ofrl_robot.training.learner import Learner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest has it
from training.small_run import HYPER, TRAIN, config

BEGIN, TRAINED = 0, 5  # steps; the warm start is 2
CASES = [("bc", BEGIN), ("cql", BEGIN), ("cql", TRAINED), ("brac", BEGIN), ("brac", TRAINED)]
FLAGS = ["--batch-size", 8, "--checkpoint-every", 2, "--probe-size", 20, "--log-every", 1,
         "--threads", 1, "--precision", "fp32", "--latent", 8, "--hidden", 16,
         "--warm-start-steps", 1]  # fmt: skip


@contextlib.contextmanager
def noise_of_rows(team):
    """Within this context the noise of a row of the joint batch is the same in any process."""
    generator = torch.Generator().manual_seed(7)

    def by_row(draw):
        def drawn(rows, *shape, **_):
            assert rows * team.size == TRAIN.batch_size
            joint = draw(TRAIN.batch_size, *shape, generator=generator)
            return joint[team.rank :: team.size]

        return drawn

    with mock.patch.object(torch, "randn", by_row(torch.randn)):
        with mock.patch.object(torch, "rand", by_row(torch.rand)):
            yield


def gradients(data, team):
    """Of one update of every case, by "algorithm step parameter"."""
    found = {}
    for algo, step in CASES:
        settings = config(data, algo, dataclasses.replace(HYPER[algo], shift=0))
        if team.size == 1:
            learner = Learner(settings)
        else:
            learner = DistributedLearner(settings, team)
        learner.algorithm.step = step
        with noise_of_rows(team):
            learner.update()
        for name, parameter in learner.algorithm.named_parameters():
            if parameter.grad is not None:
                found["{} {} {}".format(algo, step, name)] = parameter.grad.contiguous()
    return found


def runs(data, folder):
    """Exit codes of a run, of the same with more steps, and of one that diverges."""
    words = ["train", data, *FLAGS, "--out", folder]
    commands = [
        [*words, "--steps", 4, "--name", "run"],
        [*words, "--steps", 6, "--name", "run", "--resume"],
        [*words, "--steps", 6, "--name", "diverged", "--critic-lr", 1e30],
    ]
    return [main([str(word) for word in command]) for command in commands]


if __name__ == "__main__":
    torch.set_num_threads(1)
    data, folder = Path(sys.argv[1]), Path(sys.argv[2])
    team = Team.of_environment()
    name = "{} of {}".format(team.rank, team.size)
    with joined(team, "cpu") if team.size > 1 else contextlib.nullcontext():
        safetensors.torch.save_file(gradients(data, team), str(folder / name))
    if team.size > 1:
        (folder / (name + ".json")).write_text(json.dumps(runs(data, folder)))
    assert os.environ.get("GLOO_SOCKET_IFNAME", "lo") == "lo"
