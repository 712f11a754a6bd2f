"""Program of each process in test_distributed.py: gradients, then runs by command line.

Usage: worker.py DATASET FOLDER RANK SIZE.
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
from torch import distributed as group

from ofrl_robot.cli import main
from ofrl_robot.training import distributed
from ofrl_robot.training.distributed import DistributedLearner
from ofrl_robot.training.learner import Learner
from ofrl_robot.training.process_group import ProcessGroup

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as pytest has it
from tests.training.small_run import HYPER, TRAIN, config

BEGIN, TRAINED = 0, 5  # steps; the warm start is 2
CASES = [("bc", BEGIN), ("cql", BEGIN), ("cql", TRAINED), ("brac", BEGIN), ("brac", TRAINED)]
FLAGS = ["--batch-size", 8, "--checkpoint-every", 2, "--probe-size", 20, "--log-every", 1,
         "--threads", 1, "--precision", "fp32", "--latent", 8, "--hidden", 16,
         "--warm-start-steps", 1]  # fmt: skip


@contextlib.contextmanager
def noise_of_rows(members):
    """Within this context the noise of a row of the joint batch is the same in any process."""
    generator = torch.Generator().manual_seed(7)

    def by_row(draw):
        def drawn(rows, *shape, **_):
            assert rows * members.size == TRAIN.batch_size
            joint = draw(TRAIN.batch_size, *shape, generator=generator)
            return joint[members.rank :: members.size]

        return drawn

    with mock.patch.object(torch, "randn", by_row(torch.randn)):
        with mock.patch.object(torch, "rand", by_row(torch.rand)):
            yield


def gradients(data, members):
    """Of one update of every case, by "algorithm step parameter"."""
    found = {}
    for algo, step in CASES:
        settings = config(data, algo, dataclasses.replace(HYPER[algo], shift=0))
        if members.size == 1:
            learner = Learner(settings)
        else:
            learner = DistributedLearner(settings, members)
        learner.algorithm.step = step
        with noise_of_rows(members):
            learner.update()
        for name, parameter in learner.algorithm.named_parameters():
            if parameter.grad is not None:
                found[f"{algo} {step} {name}"] = parameter.grad.contiguous()
    return found


def runs(data, folder):
    """Exit codes of a run, of the same with more steps, and of one that diverges."""
    words = ["train", data, *FLAGS, "--out", folder]
    commands = [
        [*words, "--steps", 4, "--name", "run"],
        [*words, "--steps", 6, "--name", "run", "--resume"],
        [*words, "--steps", 6, "--name", "diverged", "--critic-lr", 1e30],
    ]
    codes = []
    for command in commands:
        codes.append(main([str(word) for word in command]))
        group.barrier()  # torchrun ends the others; here they wait for what process 0 writes
    return codes


if __name__ == "__main__":
    torch.set_num_threads(1)
    data, folder = Path(sys.argv[1]), Path(sys.argv[2])
    members = ProcessGroup(int(sys.argv[3]), int(sys.argv[4]))
    name = f"{members.rank} of {members.size}"
    if members.size > 1:  # they meet in a file: nothing listens but gloo, on loopback
        meeting = f"file://{folder / 'meeting'}"
        group.init_process_group("gloo", meeting, rank=members.rank, world_size=members.size)
        distributed.joined = lambda *_: contextlib.nullcontext()
        os.environ.update(RANK=sys.argv[3], WORLD_SIZE=sys.argv[4], LOCAL_RANK=sys.argv[3])
    safetensors.torch.save_file(gradients(data, members), str(folder / name))
    if members.size > 1:
        (folder / (f"{name}.json")).write_text(json.dumps(runs(data, folder)))
