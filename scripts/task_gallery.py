"""Draw the pictures and the table of docs/simulator.md: one start per task, k/n of its script.

``make gallery`` runs it. It rewrites docs/images/tasks/ and the table between the markers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Tuple

import cv2
from rich.progress import track

from ofrl_robot import sim
from ofrl_robot.sim.env import WidowXEnv
from ofrl_robot.sim.scripted import ScriptedPolicy, make_scripted
from ofrl_robot.sim.tasks import find

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "simulator.md"
PICTURES = ROOT / "docs" / "images" / "tasks"
BEGIN, END = "<!-- task table -->\n", "<!-- end of task table -->"
PICTURE_SIZE = 192
NOISES = (0.0, 0.1)


def picture(task_id: str) -> str:
    """Draw the start of an episode; return the file's path as the page links it."""
    env = sim.make(task_id, render_mode="rgb_array", render_size=PICTURE_SIZE)
    env.reset(seed=0)
    path = PICTURES / f"{task_id}.png"
    cv2.imwrite(str(path), cv2.cvtColor(env.render(), cv2.COLOR_RGB2BGR))
    env.close()
    return path.relative_to(PAGE.parent).as_posix()


def successes(task_id: str, noise: float, episodes: int) -> Tuple[int, int]:
    """Return k and n: episodes of the task's own script that succeed at their last step."""
    env = sim.make(task_id, image_size=8, image_format="uint8")
    policy = make_scripted(task_id, noise)
    count = sum(_succeeds(env, policy, seed) for seed in range(episodes))
    env.close()
    return count, episodes


def _succeeds(env: WidowXEnv, policy: ScriptedPolicy, seed: int) -> bool:
    env.reset(seed=seed)
    policy.reset(seed)
    truncated, reward = False, 0.0
    while not truncated:
        _, reward, _, truncated, _ = env.step(policy.act(env.ground_truth()))
    return reward > 0.0


def row(task_id: str, episodes: int) -> str:
    """Return the table's row of one task."""
    spec = find(task_id).spec
    rates = []
    for noise in NOISES:
        count, total = successes(task_id, noise, episodes)
        rates.append(f"{count}/{total}")
    cells = [
        f"![]({picture(task_id)})",
        f"`{task_id}`<br>{spec.description}",
        str(spec.horizon),
        f"`{spec.success_key}`",
        f"`{spec.scripted_policy}`",
        *rates,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Draw all tasks and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=50, help="per task and noise")
    episodes = parser.parse_args().episodes
    PICTURES.mkdir(parents=True, exist_ok=True)
    head: List[str] = [
        "| start, seed 0 | id | horizon | reward and success | script | noise 0 | noise 0.1 |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [row(task_id, episodes) for task_id in track(sim.TASK_IDS, "tasks")]
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + BEGIN + "\n".join(head + rows) + "\n" + END + after)
    print(f"{PAGE}: {len(rows)} tasks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
