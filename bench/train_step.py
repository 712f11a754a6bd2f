"""Seconds of one image-CQL gradient step beside others, and how much of the machine it uses.

All take steps on the same random images, batch size, number of sampled actions and networks: those
of the COG and workflow papers (three convolutions of 16 channels, a trunk for each critic and the
policy, then --hidden units), and beside d3rlpy those of its own pixel encoder. That the networks
have equally many parameters is checked. Each side runs in a process of its own on all cores, and
they take turns: A B C ... A B C ... Printed are the medians over all turns, after one that is not
counted, by the clock on the wall: run it on a quiet machine. Drawing the batch is not counted.

    python bench/train_step.py --json train_step.json
    python bench/train_step.py --peers-python other/venv/bin/python

ours_fp32, ours_bf16     `ofrl train`'s step; bf16 where the processor has it, as by default
reference                bench/reference_style.py, which repeats and re-encodes images
d3rlpy                   its CQL with its PixelEncoder, at --d3rlpy-batch-size
small_fp32, small_bf16   ours with d3rlpy's networks and batch size
matmul                   the machine's ceiling: the fastest of several large matrix products
cuda                     ours as one CUDA graph, data on the device, where there is one

The share of the ceiling counts only what the algorithm needs (`needed_flops`), whatever is done.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from command import Command, cpu_name, write_json
from contestant import Contestant, Order, serve

PRECISIONS = ("fp32", "bf16")
ACTIONS, CHANNELS = 8, 16
SIDES = (
    "ours_fp32", "ours_bf16", "reference", "d3rlpy", "small_fp32", "small_bf16", "matmul", "cuda",
)  # fmt: skip

Step = Callable[[], Any]


def needed_flops(batch: int, samples: int, size: int, hidden: Sequence[int]) -> float:
    """Floating point operations of one step of twin-critic CQL(H) with the papers' networks.

    A multiplication and an addition for each weight that an image (trunk), its code (first linear
    layer) or an action (the others) must meet. Each image is encoded once by each network that
    sees it, a code meets the first layer once whatever the number of actions. N = ``samples`` of
    each kind:

        forward    policy(s), policy(s'), each critic: encode(s) and 1 + 3N actions, each target:
                   encode(s') and one action, each critic once more at the policy's action
        backward   to the weights of policy(s) and of each critic, once per weight and meeting;
                   to the inputs the same, less the first convolution (nothing is before it) and
                   the data's and samples' actions (nothing trains them); and through each critic
                   to the policy's action

    What is elementwise (augmentation, pooling, densities, Adam) is not counted.
    """
    first_conv = 9 * 3 * CHANNELS * size**2
    later_convs = 9 * CHANNELS**2 * ((size // 2) ** 2 + (size // 4) ** 2)
    flat, trunk = CHANNELS * (size // 4) ** 2, first_conv + later_convs
    inner = sum(a * b for a, b in zip(hidden[:-1], hidden[1:]))
    encode = trunk + flat * hidden[0]
    policy = encode + inner + hidden[-1] * 2 * ACTIONS
    join, head = ACTIONS * hidden[0], inner + hidden[-1]  # per action: first layer, the others
    trained = 1 + 3 * samples
    forward = 2 * policy + 2 * (2 * encode + (trained + 2) * (join + head))
    weights = policy + 2 * (encode + trained * (join + head))
    inputs = (policy - first_conv) + 2 * (encode - first_conv + trained * head + (join + head))
    return 2.0 * batch * (forward + weights + inputs)


# -- a process that is measured ----------------------------------------------------------------


def random_batch(batch: int, size: int) -> Dict[str, Any]:
    """Columns of B transitions, the same for all sides."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (batch, size, size, 3)
    return {
        "images": rng.integers(0, 256, shape, np.uint8),
        "next_images": rng.integers(0, 256, shape, np.uint8),
        "actions": rng.uniform(-0.99, 0.99, (batch, ACTIONS)).astype(np.float32),
        "rewards": (rng.random(batch) < 0.1).astype(np.float32),
        "terminals": rng.random(batch) < 0.02,
    }


def parameter_count(modules: Sequence[Any]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def our_algorithm(settings: argparse.Namespace, small: bool, bf16: bool, device: str) -> Any:
    """CQL as `ofrl train` builds it; ``small`` with the trunk and heads of d3rlpy's encoder."""
    import torch
    from torch import nn

    from ofrl_robot.algos.build import Build, make_algorithm
    from ofrl_robot.algos.configs.cql import CQLConfig
    from ofrl_robot.nets import encoder
    from ofrl_robot.nets.config import NetConfig
    from ofrl_robot.specs import WIDOWX_ACTION

    def pixel_trunk(dropout: float) -> nn.Sequential:
        layers: List[nn.Module] = []
        for channels, stride in zip((3, CHANNELS, CHANNELS), settings.strides):
            layers += [nn.Conv2d(channels, CHANNELS, 3, stride), nn.ReLU()]
        return nn.Sequential(*layers)

    if small:  # in this process only: each contestant has one of its own
        encoder.TRUNKS["cog_small"] = pixel_trunk
    nets = NetConfig(
        encoder="cog_small" if small else "cog",
        latent=0,
        hidden=(settings.feature_size,) if small else tuple(settings.hidden),
        critic_encoders="separate",
    )
    config = CQLConfig(warm_start_steps=0, shift=4, cql_samples=(settings.samples,) * 3)
    shapes = {"image": (settings.image_size, settings.image_size, 3)}
    return make_algorithm(config, Build(nets, shapes, WIDOWX_ACTION, torch.device(device), bf16))


def our_batch(columns: Dict[str, Any], discount: float) -> Any:
    """Return the columns of :func:`random_batch` as a batch of one-step transitions."""
    from ofrl_robot.data.replay.batch import Batch

    alive = (~columns["terminals"]).astype("float32")
    return Batch(
        observations={"image": columns["images"]},
        next_observations={"image": columns["next_images"]},
        actions=columns["actions"],
        rewards=columns["rewards"],
        bootstrap=discount * alive,
        next_actions=columns["actions"],
        has_next_action=alive,
        returns=columns["rewards"],
    )


def ours(small: bool, bf16: bool, settings: argparse.Namespace) -> Tuple[Step, int]:
    import torch

    from ofrl_robot.training.allocator import keep_freed_memory
    from ofrl_robot.training.learner import has_bf16

    if bf16 and not (has_bf16(torch.device("cpu"))):
        raise RuntimeError("the processor has no bfloat16 arithmetic")
    keep_freed_memory()
    algorithm = our_algorithm(settings, small, bf16, "cpu")
    count = settings.d3rlpy_batch_size if small else settings.batch_size
    batch = our_batch(random_batch(count, settings.image_size), algorithm.config.discount)
    trained = parameter_count([algorithm.actor, algorithm.critic])
    return functools.partial(algorithm.update, batch), trained


def reference(settings: argparse.Namespace) -> Tuple[Step, int]:
    from reference_style import ReferenceStyle

    style = ReferenceStyle(settings.image_size, ACTIONS, tuple(settings.hidden), settings.samples)
    batch = random_batch(settings.batch_size, settings.image_size)
    step = functools.partial(style.update, **batch)
    return step, parameter_count([style.policy] + style.critics)


def d3rlpy(settings: argparse.Namespace) -> Tuple[Step, int]:
    import numpy as np
    from d3rlpy.algos import CQLConfig
    from d3rlpy.dataset import Episode, create_infinite_replay_buffer
    from d3rlpy.models.encoders import PixelEncoderFactory
    from d3rlpy.preprocessing import PixelObservationScaler

    count = settings.d3rlpy_batch_size
    columns = random_batch(count, settings.image_size)
    episode = Episode(
        np.ascontiguousarray(columns["images"].transpose(0, 3, 1, 2)),
        columns["actions"],
        columns["rewards"][:, None],
        True,
    )
    buffer = create_infinite_replay_buffer([episode])
    filters = [[CHANNELS, 3, stride] for stride in settings.strides]
    factory = PixelEncoderFactory(filters=filters, feature_size=settings.feature_size)
    algorithm = CQLConfig(
        batch_size=count,
        n_action_samples=settings.samples,
        actor_encoder_factory=factory,
        critic_encoder_factory=factory,
        alpha_learning_rate=0.0,
        observation_scaler=PixelObservationScaler(),
    ).create(device="cpu:0")
    algorithm.build_with_dataset(buffer)
    batch = buffer.sample_transition_batch(count)
    modules = algorithm.impl.modules
    step = functools.partial(algorithm.update, batch)
    return step, parameter_count([modules.policy, modules.q_funcs])


def cuda(settings: argparse.Namespace) -> Tuple[Step, int]:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("not measured: no CUDA device")
    import numpy as np

    from ofrl_robot.data.replay.array_file import ArrayFile
    from ofrl_robot.data.replay.buffer import ReplayBuffer
    from ofrl_robot.data.replay.sampler import MixedSampler
    from ofrl_robot.data.replay.transition_store import TransitionStore
    from ofrl_robot.training.graph import GraphedUpdate
    from ofrl_robot.training.resident import ResidentData

    count = 20 * settings.batch_size
    columns = random_batch(count, settings.image_size)
    frames = np.concatenate([columns["images"], columns["next_images"][-1:]])
    with tempfile.NamedTemporaryFile() as file:
        file.write(frames.tobytes())
        file.flush()
        store = TransitionStore(
            observations={"image": ArrayFile(Path(file.name), frames.shape, mapped=True)},
            actions=columns["actions"],
            rewards=columns["rewards"],
            terminals=columns["terminals"],
            starts=np.array([0, count]),
            first_frames=np.array([0]),
            fingerprint="",
        )
        buffer = ReplayBuffer([store], [1.0], discount=0.99)
        data = ResidentData(buffer, torch.device("cuda"))
    algorithm = our_algorithm(settings, False, torch.cuda.is_bf16_supported(), "cuda")
    update = GraphedUpdate(algorithm, data, settings.batch_size)
    sampler = MixedSampler(buffer, settings.batch_size, seed=0)

    def step() -> None:
        float(update(sampler.draw())["td_error"])  # waits for the device

    return step, parameter_count([algorithm.actor, algorithm.critic])


def matmul(settings: argparse.Namespace) -> Callable[[Order], Order]:
    """Answers with GFLOP/s of each precision: the best of several products."""
    import torch

    shapes = ((4096, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 2048))
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}

    def rate(dtype: torch.dtype, rows: int, inner: int, columns: int, seconds: float) -> float:
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        out = torch.empty(rows, columns, dtype=dtype)
        torch.mm(a, b, out=out)
        taken: List[float] = []
        while sum(taken) < seconds:
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            taken.append(time.perf_counter() - start)
        return 2e-9 * rows * inner * columns / statistics.median(taken)

    def turn(order: Order) -> Order:
        seconds = order["seconds"] / len(shapes)
        return {
            name: max(rate(dtype, *shape, seconds) for shape in shapes)
            for name, dtype in dtypes.items()
        }

    return turn


STEPS: Dict[str, Callable[[argparse.Namespace], Tuple[Step, int]]] = {
    "reference": reference,
    "d3rlpy": d3rlpy,
    "cuda": cuda,
    **{f"ours_{p}": functools.partial(ours, False, p == "bf16") for p in PRECISIONS},
    **{f"small_{p}": functools.partial(ours, True, p == "bf16") for p in PRECISIONS},
}


def prepare(side: str, settings: argparse.Namespace) -> Callable[[Order], Order]:
    """The function that answers ``{"seconds": s}`` with the seconds of a step in s seconds."""
    import torch

    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    if side == "matmul":
        return matmul(settings)
    step, parameters = STEPS[side](settings)

    def turn(order: Order) -> Order:
        count, start = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - start < order["seconds"]:
            step()
            count += 1
        return {"step_s": (time.perf_counter() - start) / count, "parameters": parameters}

    return turn


# -- the process that measures ----------------------------------------------------------------


def compare(settings: argparse.Namespace) -> Dict[str, Any]:
    """Medians of all sides, and why those that are missing could not be measured."""
    words = json.dumps(vars(settings))
    sides: Dict[str, Contestant] = {}
    order = {"seconds": settings.seconds}
    try:
        for side in SIDES:
            python = settings.peers_python if side == "d3rlpy" else sys.executable
            sides[side] = Contestant(python, __file__, [side, words], None)
        turns: Dict[str, List[Order]] = {s: [] for s, c in sides.items() if not c.error}
        for required in ("ours_fp32", "small_fp32", "reference", "matmul"):
            if required not in turns:
                sys.exit(f"bench: {required}: {sides[required].error}")
        for side in turns:
            sides[side].ask(order)
        for _ in range(settings.repeats):
            for side in turns:
                turns[side].append(sides[side].ask(order))
    finally:
        for contestant in sides.values():
            contestant.close()
    medians: Dict[str, Any] = {side: None for side in SIDES}
    for side, taken in turns.items():
        medians[side] = {key: statistics.median(turn[key] for turn in taken) for key in taken[0]}
    errors = {side: c.error for side, c in sides.items() if c.error}
    return {"medians": medians, "errors": errors, "turns": turns}


def require_same_networks(medians: Dict[str, Any]) -> None:
    """End where two sides of a ratio have not equally many parameters."""
    for group in (("ours", "reference"), ("small", "d3rlpy")):
        counts = {
            side: int(values["parameters"])
            for side, values in medians.items()
            if values and side.startswith(group)
        }
        if len(set(counts.values())) > 1:
            sys.exit(f"bench: the networks differ, parameters: {counts}")


def ratios(medians: Dict[str, Any], flops: float) -> Dict[str, Any]:
    """Of each precision, None where a side is missing."""
    result: Dict[str, Any] = {}
    for precision in PRECISIONS:
        step, small = (medians[side + precision] for side in ("ours_", "small_"))
        peer = medians["d3rlpy"]
        result[precision] = step and {
            "vs_reference": medians["reference"]["step_s"] / step["step_s"],
            "vs_d3rlpy": peer and peer["step_s"] / small["step_s"],
            "of_ceiling": 1e-9 * flops / step["step_s"] / medians["matmul"][precision],
        }
    return result


def report(result: Dict[str, Any]) -> str:
    medians, errors, flops = result["medians"], result["errors"], result["needed_gflop"]
    lines = [f"{'':<12}{'ms a step':>12}{'steps/s':>12}{'GFLOP/s':>12}"]
    for side in SIDES:
        values = medians[side]
        if values is None:
            lines.append(f"{side:<12}{errors[side]}")
        elif side == "matmul":
            for precision in PRECISIONS:
                name = f"matmul_{precision}"
                lines.append(f"{name:<12}{values[precision]:36.0f}")
        else:
            seconds = values["step_s"]
            line = f"{side:<12}{1e3 * seconds:12.1f}{1.0 / seconds:12.2f}"
            if side.startswith("ours"):
                line += f"{flops / seconds:12.0f}"
            lines.append(line)
    for precision in PRECISIONS:
        values = result["by_precision"][precision]
        if values:
            peer = values["vs_d3rlpy"]
            lines.append("{}: {:.0f}x the reference style, {}, {:.0f} % of the ceiling".format(
                precision, values["vs_reference"],
                "d3rlpy not measured" if peer is None else f"{peer:.0f}x d3rlpy",
                100.0 * values["of_ceiling"]))  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    command = Command(__doc__, serve_words=2)
    number = command.number
    number("--batch-size", default=256, help="transitions (default: 256)")
    number("--d3rlpy-batch-size", default=128, help="of d3rlpy and ours beside it (default: 128)")
    number("--samples", default=4, help="actions of each of the three kinds (default: 4)")
    number("--image-size", default=48, help="pixels (default: 48)")
    number("--hidden", nargs="+", default=[1024, 512, 256], help="units (default: 1024 512 256)")
    number("--strides", nargs=3, default=[1, 2, 2],
           help="of the three 16-channel layers of d3rlpy's encoder (default: 1 2 2)")  # fmt: skip
    number("--feature-size", default=512, help="units of d3rlpy's linear layer (default: 512)")
    number("--threads", default=len(os.sched_getaffinity(0)), help="of each (default: all cores)")
    number("--repeats", default=5, help="turns of each (default: 5)")
    command.parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (default: 1)")
    command.add_interpreter("--peers-python", "d3rlpy")
    settings = command.parse(positive=("batch_size", "samples", "repeats", "threads"))
    if settings.serve:
        side, words = settings.serve
        return serve(functools.partial(prepare, side, argparse.Namespace(**json.loads(words))))
    load = os.getloadavg()[0]
    result = compare(settings)
    require_same_networks(result["medians"])
    flops = needed_flops(
        settings.batch_size, settings.samples, settings.image_size, settings.hidden
    )
    result["needed_gflop"] = 1e-9 * flops
    result["by_precision"] = ratios(result["medians"], flops)
    used = "bf16" if result["by_precision"]["bf16"] else "fp32"
    result.update(result["by_precision"][used], precision=used, load_before=load)
    result["settings"] = vars(settings)
    result["cpu"] = cpu_name()
    print(
        f"batch {settings.batch_size}, {settings.threads} threads, {1e-9 * flops:.1f} "
        f"GFLOP a step; load average before: {load:.2f}"
    )
    print(report(result), flush=True)
    write_json(settings.json, result)


if __name__ == "__main__":
    main()
