"""Seconds of one image-CQL gradient step beside others, and how much of the machine it uses.

All take steps on the same random images with the same allocator settings. Sides that are compared
have the same batch size, number of sampled actions and networks; that the networks have equally
many parameters is checked. Each side runs in a process of its own on all cores, and they take
turns: A B C ... A B C ... Printed are the medians over all turns, after one that is not counted, by
the clock on the wall: run it on a quiet machine. On a busy one `--clock cpu --threads 1` counts the
processor's time instead. Drawing the batch is not counted.

    python bench/train_step.py --json train_step.json
    python bench/train_step.py --peers-python other/venv/bin/python

ours_fp32, ours_bf16        `ofrl train`'s step with the networks of the COG and workflow papers
                            (three convolutions of 16 channels, a trunk for each critic and the
                            policy, then --hidden units); bf16 where the processor has it
reference                   bench/reference_style.py, which repeats and re-encodes images
d3rlpy                      its CQL with three layers of 16 channels, at --d3rlpy-batch-size
small_fp32, small_bf16      ours with those networks and batch size
d3rlpy_default              its CQL as it comes: its own pixel encoder, batch size and samples
default_fp32, default_bf16  ours with those
matmul                      the machine's ceiling: the fastest of several large matrix products
cuda                        ours as one CUDA graph, data on the device, where there is one

The share of the ceiling counts only what the algorithm needs (`needed_flops`), whatever is done.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
from typing import Any, Dict, List, Sequence

from command import Command, cpu_name, write_json
from contestant import Contestant, Order, serve
from step_sides import ACTIONS, CHANNELS, CLOCKS, PRECISIONS, prepare

SIDES = (
    "ours_fp32", "ours_bf16", "reference", "d3rlpy", "small_fp32", "small_bf16",
    "d3rlpy_default", "default_fp32", "default_bf16", "matmul", "cuda",
)  # fmt: skip
# of each ratio: whose name begins so is ours, the other's name
RIVALS = {"ours": "reference", "small": "d3rlpy", "default": "d3rlpy_default"}


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


def compare(settings: argparse.Namespace) -> Dict[str, Any]:
    """Medians of all sides, and why those that are missing could not be measured."""
    words = json.dumps(vars(settings))
    sides: Dict[str, Contestant] = {}
    order = {"seconds": settings.seconds}
    try:
        for side in SIDES:
            python = settings.peers_python if side.startswith("d3rlpy") else sys.executable
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
    allocator = {side: str(taken[0]["allocator"]) for side, taken in turns.items()}
    medians: Dict[str, Any] = {side: None for side in SIDES}
    for side, taken in turns.items():
        numbers = [key for key in taken[0] if key != "allocator"]
        medians[side] = {key: statistics.median(turn[key] for turn in taken) for key in numbers}
    errors = {side: c.error for side, c in sides.items() if c.error}
    return {"medians": medians, "errors": errors, "allocator": allocator, "turns": turns}


def require_same_networks(medians: Dict[str, Any]) -> None:
    """End where two sides of a ratio have not equally many parameters."""
    for name, rival in RIVALS.items():
        counts = {
            side: int(values["parameters"])
            for side, values in medians.items()
            if values and (side == rival or side.startswith(f"{name}_"))
        }
        if len(set(counts.values())) > 1:
            sys.exit(f"bench: the networks differ, parameters: {counts}")


def ratios(medians: Dict[str, Any], flops: float) -> Dict[str, Any]:
    """Of each precision, None where a side is missing."""
    result: Dict[str, Any] = {}
    for precision in PRECISIONS:
        step = medians[f"ours_{precision}"]
        result[precision] = step and {
            **{
                f"vs_{rival}": medians[rival]
                and medians[rival]["step_s"] / medians[f"{name}_{precision}"]["step_s"]
                for name, rival in RIVALS.items()
            },
            "of_ceiling": 1e-9 * flops / step["step_s"] / medians["matmul"][precision],
        }
    return result


def report(result: Dict[str, Any]) -> str:
    medians, errors, flops = result["medians"], result["errors"], result["needed_gflop"]
    lines = [f"{'':<15}{'ms a step':>12}{'steps/s':>12}{'GFLOP/s':>12}"]
    for side in SIDES:
        values = medians[side]
        if values is None:
            lines.append(f"{side:<15}{errors[side]}")
        elif side == "matmul":
            for precision in PRECISIONS:
                name = f"matmul_{precision}"
                lines.append(f"{name:<15}{values[precision]:36.0f}")
        else:
            seconds = values["step_s"]
            line = f"{side:<15}{1e3 * seconds:12.1f}{1.0 / seconds:12.2f}"
            if side.startswith("ours"):
                line += f"{flops / seconds:12.0f}"
            lines.append(line)
    for precision in PRECISIONS:
        values = result["by_precision"][precision]
        if values:
            peers = [
                f"{name} not measured" if ratio is None else f"{ratio:.1f}x {name}"
                for name, ratio in (
                    ("the reference style", values["vs_reference"]),
                    ("d3rlpy", values["vs_d3rlpy"]),
                    ("d3rlpy as it comes", values["vs_d3rlpy_default"]),
                )
            ]
            share = f"{100.0 * values['of_ceiling']:.0f} % of the ceiling"
            lines.append(f"{precision}: {', '.join([*peers, share])}")
    for allocator in sorted(set(result["allocator"].values())):
        users = [side for side, used in result["allocator"].items() if used == allocator]
        lines.append(f"allocator, {allocator}: {', '.join(users)}")
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
    number("--default-batch-size", default=256, help="of d3rlpy as it comes (default: its 256)")
    number("--default-samples", default=10,
           help="actions of each kind of d3rlpy as it comes (default: its 10)")  # fmt: skip
    number("--threads", default=len(os.sched_getaffinity(0)), help="of each (default: all cores)")
    number("--repeats", default=5, help="turns of each (default: 5)")
    option = command.parser.add_argument
    option("--seconds", type=float, default=1.0, help="of a turn (default: 1)")
    option("--clock", choices=list(CLOCKS), default="wall", help="what is counted (default: wall)")
    option("--allocator", choices=("kept", "system"), default="kept",
           help="of all sides: freed memory kept in the process, as `ofrl train` does, or as the "
           "system has it (default: kept)")  # fmt: skip
    command.add_interpreter("--peers-python", "d3rlpy")
    settings = command.parse(
        positive=(
            "batch_size",
            "samples",
            "default_batch_size",
            "default_samples",
            "repeats",
            "threads",
        )
    )
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
    result["of_ceiling_fp32"] = result["by_precision"]["fp32"]["of_ceiling"]
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
