"""Batches per second and memory of our sampler beside robomimic's loader and d3rlpy's buffer.

All draw uniform batches of image, next image, action, reward and terminal from the same random
episodes, made for the run. Each runs in a process of its own, pinned to the same core, and they
take turns: A B C ... A B C ... Printed are the medians over all turns, after one that is not
counted (the page cache is warm, caches are filled). The clock is the CPU time of the process:
what else runs on the core does not count; batches/s by the clock on the wall stand beside it.
Memory is the growth of the peak of the resident memory since the imports.

    python bench/sampler.py
    python bench/sampler.py --peers-python other/venv/bin/python

mapped           ours, frames mapped into memory as they fit in the bound
read             ours, bound smaller than the frames: read from disk as they are drawn
gather           two uint8 arrays in memory, indexed: numpy and nothing else
robomimic        SequenceDataset and DataLoader, no cache
robomimic_cached the same with hdf5_cache_mode="all"
d3rlpy           its replay buffer
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from contestant import Contestant, Order, last_core, serve

OURS = ("mapped", "read", "gather")
PEERS = ("robomimic", "robomimic_cached", "d3rlpy")
ROBOMIMIC_FILE, EPISODES = "robomimic.hdf5", "episodes"
PEERS_PYTHON = Path(__file__).resolve().parent.parent / ".bench-venv" / "bin" / "python"
MIB = 1 << 20

Draw = Callable[[], Any]


# -- a process that is measured: imports what it needs, then opens, then draws ----------------


def mapped(folder: Path, batch: int, bound_mb: float) -> Callable[[], Draw]:
    from ofrl_robot.data.datasets.dataset import open_dataset
    from ofrl_robot.data.replay.buffer import ReplayBuffer
    from ofrl_robot.data.replay.sampler import MixedSampler
    from ofrl_robot.data.replay.transition_store import open_transition_store

    def start() -> Draw:
        dataset = open_dataset(folder / EPISODES)
        store = open_transition_store(dataset, ("image",), memory_mb=bound_mb)
        return MixedSampler(ReplayBuffer([store], [1.0]), batch, seed=0).sample

    return start


def gather(folder: Path, batch: int, bound_mb: float) -> Callable[[], Draw]:
    import h5py
    import numpy as np

    def start() -> Draw:
        with h5py.File(str(folder / ROBOMIMIC_FILE), "r") as file:
            demos = list(file["data"].values())
            names = ("obs/image", "next_obs/image", "actions", "rewards", "dones")
            columns = [np.concatenate([demo[name][:] for demo in demos]) for name in names]
        rng = np.random.default_rng(0)

        def draw() -> Any:
            index = rng.integers(len(columns[0]), size=batch)
            return [column[index] for column in columns]

        return draw

    return start


def robomimic(cache: Optional[str], folder: Path, batch: int, bound_mb: float) -> Any:
    import torch
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    def start() -> Draw:
        obs_utils.initialize_obs_utils_with_obs_specs([{"obs": {"rgb": ["image"]}}])
        data = SequenceDataset(
            str(folder / ROBOMIMIC_FILE),
            obs_keys=("image",),
            dataset_keys=("actions", "rewards", "dones"),
            hdf5_cache_mode=cache,
        )
        # an endless RandomSampler
        sampler = itertools.chain.from_iterable(
            torch.randint(len(data), (4096,)).tolist() for _ in itertools.count()
        )
        loader = torch.utils.data.DataLoader(data, batch, sampler=sampler, drop_last=True)
        return functools.partial(next, iter(loader))

    return start


def d3rlpy(folder: Path, batch: int, bound_mb: float) -> Callable[[], Draw]:
    import h5py
    import numpy as np
    from d3rlpy.dataset import Episode, create_infinite_replay_buffer

    def episode(demo: h5py.Group) -> Episode:
        return Episode(
            np.ascontiguousarray(demo["obs/image"][:].transpose(0, 3, 1, 2)),
            demo["actions"][:],
            demo["rewards"][:].astype(np.float32)[:, None],
            bool(demo["dones"][-1]),
        )

    def start() -> Draw:
        with h5py.File(str(folder / ROBOMIMIC_FILE), "r") as file:
            buffer = create_infinite_replay_buffer([episode(d) for d in file["data"].values()])
        return functools.partial(buffer.sample_transition_batch, batch)

    return start


SIDES: Dict[str, Callable[[Path, int, float], Callable[[], Draw]]] = {
    "mapped": mapped,
    "read": mapped,
    "gather": gather,
    "robomimic": functools.partial(robomimic, None),
    "robomimic_cached": functools.partial(robomimic, "all"),
    "d3rlpy": d3rlpy,
}


def resident_mib(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def prepare(side: str, folder: str, batch: str, bound_mb: str) -> Callable[[Order], Order]:
    """The function that answers ``{"seconds": s}`` with batches/s by both clocks and memory."""
    start = SIDES[side](Path(folder), int(batch), float(bound_mb))
    before = resident_mib("VmRSS")
    draw = start()

    def turn(order: Order) -> Order:
        count, cpu, wall = 0, time.process_time(), time.perf_counter()
        while count == 0 or time.perf_counter() - wall < order["seconds"]:
            draw()
            count += 1
        return {
            "batches_per_s": count / (time.process_time() - cpu),
            "batches_per_s_wall": count / (time.perf_counter() - wall),
            "memory_mib": resident_mib("VmHWM") - before,
        }

    return turn


# -- the process that measures ----------------------------------------------------------------


def make_episodes(folder: Path, episodes: int, steps: int, size: int) -> None:
    """The same random episodes as ours and as one robomimic file."""
    import h5py
    import numpy as np

    from ofrl_robot.control.signals import POLICY, AppliedAction, Tick
    from ofrl_robot.data.datasets.dataset import open_dataset
    from ofrl_robot.data.episodes.schema import SUCCESS, EpisodeMeta
    from ofrl_robot.data.episodes.writer import EpisodeWriter
    from ofrl_robot.data.replay.transition_store import open_transition_store
    from ofrl_robot.specs import WIDOWX_ACTION, widowx_observation

    rng = np.random.default_rng(0)
    meta = EpisodeMeta("sim", "bench", WIDOWX_ACTION, widowx_observation(size), 5.0)
    (folder / EPISODES).mkdir()
    with h5py.File(str(folder / ROBOMIMIC_FILE), "w") as file:
        for number in range(episodes):
            images = rng.integers(0, 256, (steps + 1, size, size, 3), np.uint8)
            actions = rng.uniform(-1.0, 1.0, (steps, WIDOWX_ACTION.size)).astype(np.float32)
            last = np.arange(steps) == steps - 1
            writer = EpisodeWriter(folder / EPISODES, meta)
            for k, image in enumerate(images):
                stamp, end = (k + 1) * 200_000_000, k == steps
                writer.observe(
                    Tick(stamp, k, {"image": image}, np.zeros(10), float(end), terminated=end)
                )
                if not end:
                    writer.act(AppliedAction(stamp, actions[k], actions[k], POLICY))
            writer.finish(SUCCESS, "bench")
            demo = file.create_group(f"data/demo_{number}")
            demo.attrs["num_samples"] = steps
            demo["obs/image"], demo["next_obs/image"] = images[:-1], images[1:]
            demo["actions"], demo["rewards"], demo["dones"] = actions, last * 1.0, last
    open_transition_store(
        open_dataset(folder / EPISODES), ("image",)
    )  # built once, as before a training


def compare(folder: Path, arguments: argparse.Namespace, core: Optional[int]) -> Dict[str, Any]:
    """Medians of each side, and why those that are missing could not be measured."""
    bounds = {"read": arguments.bound_mb}
    sides: Dict[str, Contestant] = {}
    try:
        for side in OURS + PEERS:
            python = sys.executable if side in OURS else arguments.peers_python
            bound = str(bounds.get(side, 1 << 20))
            words = [side, str(folder), str(arguments.batch_size), bound]
            sides[side] = Contestant(python, __file__, words, core)
            if side in OURS and sides[side].error:
                sys.exit(f"bench: {side}: {sides[side].error}")
        turns: Dict[str, List[Order]] = {s: [] for s, c in sides.items() if not c.error}
        for side in turns:
            sides[side].ask({"seconds": arguments.seconds})
        for _ in range(arguments.repeats):
            for side in turns:
                turns[side].append(sides[side].ask({"seconds": arguments.seconds}))
    finally:
        for contestant in sides.values():
            contestant.close()
    result: Dict[str, Any] = {side: None for side in sides}
    for side, taken in turns.items():
        result[side] = {key: statistics.median(turn[key] for turn in taken) for key in taken[0]}
    result["errors"] = {side: c.error for side, c in sides.items() if c.error}
    for side in ("mapped", "read"):
        for other in ("gather",) + PEERS:
            rates = [(result[s] or {}).get("batches_per_s") for s in (side, other)]
            ratio = None if rates[1] is None else rates[0] / rates[1]
            result[f"{side}_vs_{other}"] = ratio
    return result


def report(result: Dict[str, Any]) -> str:
    lines = ["{:<18}{:>11}{:>9}{:>12}{:>14}{:>12}".format(
        "", "batches/s", "on wall", "memory MiB", "mapped is", "read is")]  # fmt: skip
    for side in OURS + PEERS:
        if result[side] is None:
            lines.append(f"{side:<18}{result['errors'][side]}")
            continue
        line = "{:<18}{:11.1f}{:9.1f}{:12.0f}".format(side, *result[side].values())
        if f"mapped_vs_{side}" in result:
            ratios = [result[f"{s}_vs_{side}"] for s in ("mapped", "read")]
            line += "{:13.1f}x{:11.1f}x".format(*ratios)
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number = functools.partial(parser.add_argument, type=int, metavar="N")
    number("--episodes", type=int, nargs="+", default=[200, 1000],
           help="of each dataset to measure (default: 200 1000)")  # fmt: skip
    number("--steps", default=50, help="of an episode (default: 50)")
    number("--image-size", default=48, help="pixels (default: 48)")
    number("--batch-size", default=256, help="transitions (default: 256)")
    number("--bound-mb", default=32, help="bound on memory for `read`, MiB (default: 32)")
    number("--repeats", default=5, help="turns of each (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (default: 1)")
    parser.add_argument("--json", metavar="FILE", help="write medians and ratios to it")
    parser.add_argument(
        "--peers-python", metavar="PATH",
        default=str(PEERS_PYTHON if PEERS_PYTHON.is_file() else sys.executable),
        help="interpreter that can import the others (default: that of bench/peers.sh, or this)",
    )  # fmt: skip
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(functools.partial(prepare, *arguments.serve))
    if min(arguments.episodes + [arguments.steps, arguments.repeats, arguments.batch_size]) < 1:
        parser.error("numbers must be 1 or more")
    if shutil.which(arguments.peers_python) is None:
        parser.error(f"no such interpreter: {arguments.peers_python}")
    core = last_core()
    results: List[Dict[str, Any]] = []
    for episodes in arguments.episodes:
        with tempfile.TemporaryDirectory(prefix="ofrl-bench-") as folder:
            make_episodes(Path(folder), episodes, arguments.steps, arguments.image_size)
            result = compare(Path(folder), arguments, core)
        frames = episodes * (arguments.steps + 1) * arguments.image_size**2 * 3
        result.update(episodes=episodes, frames_mib=frames / MIB)
        results.append(result)
        print(
            f"\n{episodes} episodes of {arguments.steps} steps, {frames / MIB:.0f} MiB of "
            f"frames; core {core} of {os.cpu_count()}"
        )
        print(report(result), flush=True)
    if arguments.json:
        settings = ("steps", "image_size", "batch_size", "bound_mb", "repeats", "seconds")
        values: Dict[str, Any] = {name: getattr(arguments, name) for name in settings}
        values["cpu"] = platform.processor() or platform.machine()
        values["datasets"] = results
        Path(arguments.json).write_text(f"{json.dumps(values, indent=2)}\n")


if __name__ == "__main__":
    main()
