"""CPU time until a policy first succeeds in most trials: ours, d3rlpy's CQL, robomimic's BC.

Each contestant learns from the same dataset in a process of its own, with the same allocator
settings and number of threads. After every --every steps its deterministic policy is tried on
--trials unseen seeds of the embedded simulator. The first evaluation with --goal successes or more
ends it; so does the budget. Counted is the processor's time of its gradient steps, batches
included; opening the data, saving and evaluations are not.

    ofrl collect --task Widow250SingleObjGrasp-v0 --episodes 300 --out datasets/grasp
    python bench/time_to_success.py datasets/grasp --json time_to_success.json

ours        config/training/grasp_cql.yaml, as `ofrl train` takes it
d3rlpy      its CQL with all its defaults, its pixel encoder among them
robomimic   its BC with its defaults (ResNet-18), where robomimic and torchvision are installed

It takes hours. It can be stopped at any time: the same command goes on after the last evaluation,
from the states and rows in --work; to begin anew delete that folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from command import Command, cpu_name, write_json
from contestant import Contestant, Order, serve
from success_sides import SIDES

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for d3rlpy's interpreter

CONFIG = Path(__file__).resolve().parent.parent / "config" / "training" / "grasp_cql.yaml"
DONE, STATE = "rows.json", "state"  # in the folder of a contestant
FIRST_SEED = 1_000_000  # of the trials, as `ofrl evaluate` has them
SAME = ("dataset", "task", "trials", "every", "threads", "config", "train", "seed")


# -- a process that is measured ----------------------------------------------------------------


def successes(act: Callable[[Any], Any], task: str, trials: int, size: int) -> int:
    """Return in how many trials, seen at ``size`` pixels, the task is achieved at the end."""
    import numpy as np

    from ofrl_robot.sim.env import WidowXEnv

    env = WidowXEnv(task, size, image_format="uint8")
    count = 0
    try:
        for seed in range(FIRST_SEED, FIRST_SEED + trials):
            observation, _ = env.reset(seed=seed)
            truncated, reward = False, 0.0
            while not truncated:
                action = np.asarray(act(observation["image"]), np.float32)
                observation, reward, _, truncated, _ = env.step(np.clip(action, -1.0, 1.0))
            count += reward > 0.0
    finally:
        env.close()
    return count


def prepare(side: str, settings: argparse.Namespace) -> Callable[[Order], Order]:
    """The function that trains to the next evaluation and answers with its row."""
    from ofrl_robot.data.datasets.dataset import open_dataset
    from ofrl_robot.training.allocator import keep_freed_memory

    keep_freed_memory()
    folder, dataset = Path(settings.work) / side, Path(settings.dataset)
    (size, _, _), *_ = (c.shape for c in open_dataset(dataset).observation_spec.cameras)
    contestant = SIDES[side](settings)
    rows = read_rows(folder)
    if rows:
        contestant.load(folder / STATE)

    def turn(order: Order) -> Order:
        begin = time.process_time()
        contestant.train(settings.every)
        taken = time.process_time() - begin
        before = rows[-1] if rows else Row(0, 0.0, 0)
        count = successes(contestant.act, settings.task, settings.trials, size)
        rows.append(Row(before.step + settings.every, before.cpu_s + taken, count))
        save(folder, contestant, rows)
        return dataclasses.asdict(rows[-1])

    return turn


@dataclasses.dataclass
class Row:
    """One evaluation: after which step and CPU time (s) how many trials succeeded."""

    step: int
    cpu_s: float
    successes: int


def save(folder: Path, contestant: Any, rows: List[Row]) -> None:
    """Replace state and rows together: a kill leaves both of before, or both of now."""
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / STATE).mkdir(parents=True)
    contestant.save(fresh / STATE)
    (fresh / DONE).write_text(json.dumps([dataclasses.asdict(row) for row in rows]))
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_rows(folder: Path) -> List[Row]:
    """Return the evaluations of a contestant so far."""
    old = folder.with_name(f"{folder.name}.old")
    if not folder.is_dir() and old.is_dir():  # killed between the two renames
        old.rename(folder)
    path = folder / DONE
    return [Row(**row) for row in json.loads(path.read_text())] if path.is_file() else []


# -- the process that measures ----------------------------------------------------------------


def reached(rows: List[Row], goal: int) -> Optional[Row]:
    """Return the first evaluation with ``goal`` successes, None if there is none yet."""
    return next((row for row in rows if row.successes >= goal), None)


def run(side: str, settings: argparse.Namespace) -> Dict[str, Any]:
    """Train one contestant until it succeeds or its budget is spent; say every evaluation."""
    rows = read_rows(Path(settings.work) / side)

    def ended() -> bool:
        spent = rows[-1].cpu_s if rows else 0.0
        return reached(rows, settings.goal) is not None or spent >= settings.budget

    error = ""
    if not ended():
        python = sys.executable if side == "ours" else settings.peers_python
        contestant = Contestant(python, __file__, [side, json.dumps(vars(settings))], None)
        error = contestant.error
        try:
            while not error and not ended():
                rows.append(Row(**contestant.ask({})))
                row = rows[-1]
                print(
                    f"{side:<10} step {row.step:>7}  {row.cpu_s:9.1f} s  "
                    f"{row.successes}/{settings.trials}",
                    flush=True,
                )
        finally:
            contestant.close()
    first = reached(rows, settings.goal)
    return {
        "cpu_s": first and first.cpu_s,
        "step": first and first.step,
        "spent_s": rows[-1].cpu_s if rows else 0.0,
        "best": max((row.successes for row in rows), default=None),
        "rows": [dataclasses.asdict(row) for row in rows],
        "error": error,
    }


def report(results: Dict[str, Dict[str, Any]], goal: int, trials: int) -> str:
    lines = []
    for side, result in results.items():
        if result["error"]:
            line = f"not measured: {result['error']}"
        elif result["cpu_s"] is None:
            line = f"not after {result['spent_s']:.1f} s (at most {result['best']}/{trials})"
        else:
            line = f"{result['cpu_s']:.1f} s, step {result['step']}"
        lines.append(f"{side:<10} {line}")
    return "\n".join([f"CPU time to {goal}/{trials}:", *lines])


def require_same(work: Path, settings: Dict[str, Any]) -> None:
    """End where the folder holds a comparison with other settings."""
    path = work / "settings.json"
    kept = {name: settings[name] for name in SAME}
    if path.is_file():
        for name, value in json.loads(path.read_text()).items():
            if kept[name] != value:
                sys.exit(
                    f"bench: {work} was made with {name} {value}, not {kept[name]}; "
                    "give the same, or another --work"
                )
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept))


def main() -> None:
    command = Command(__doc__, serve_words=2)
    option, number = command.parser.add_argument, command.number
    option("dataset", nargs="?", help="folder of episodes of the task")
    option("--work", default="datasets/time_to_success", metavar="DIR", help="states and rows")
    option("--task", default="Widow250SingleObjGrasp-v0", help="simulator task of the trials")
    option("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="who takes part")
    option("--config", default=str(CONFIG), metavar="FILE", help="of ours")
    option("--train", nargs=argparse.REMAINDER, default=[],
           help="all words after it are flags of `ofrl train` for ours")  # fmt: skip
    option("--budget", type=float, default=4 * 3600.0, help="CPU seconds of each (default: 4 h)")
    number("--goal", default=45, help="successes that are asked for (default: 45)")
    number("--trials", default=50, help="of an evaluation (default: 50)")
    number("--every", default=250, help="steps between evaluations (default: 250)")
    number("--threads", default=1, help="of each; waiting threads count, too (default: 1)")
    number("--seed", default=0, help="of the peers; ours has its own flag (default: 0)")
    command.add_interpreter("--peers-python", "d3rlpy and robomimic")
    settings = command.parse(positive=("goal", "trials", "every", "threads"))
    if settings.serve:
        side, words = settings.serve
        return serve(functools.partial(prepare, side, argparse.Namespace(**json.loads(words))))
    if settings.goal > settings.trials:
        command.parser.error(f"--goal {settings.goal} of --trials {settings.trials}")
    if settings.dataset is None or not Path(settings.dataset).is_dir():
        command.parser.error(f"no such dataset: {settings.dataset}")
    settings.dataset = str(Path(settings.dataset).resolve())
    settings.work = str(Path(settings.work).resolve())
    require_same(Path(settings.work), vars(settings))
    results = {side: run(side, settings) for side in settings.sides}
    print(report(results, settings.goal, settings.trials), flush=True)
    values = {name: getattr(settings, name) for name in (*SAME, "goal", "budget")}
    write_json(settings.json, {**values, "cpu": cpu_name(), "sides": results})


if __name__ == "__main__":
    main()
