"""Define the verb that tries a policy under single disturbances: stress."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Optional, Tuple

import tyro

from ofrl_robot.cli.progress import at_least, require_seeds
from ofrl_robot.errors import ConfigError
from ofrl_robot.policy.choice import MODE, ActionChoice
from ofrl_robot.sim.options import SimOptions


@dataclasses.dataclass(frozen=True)
class StressTest:
    """Try a policy under single disturbances in simulation: what is it sensitive to?

    Every row has the same seeds as the undisturbed one. Rows that are finished in --out are not
    run again. The table, stress.json and stress.png are in --out, and `ofrl report` shows them.
    """

    policy: tyro.conf.Positional[Path]
    """Run folder (its selected checkpoint) or checkpoint file."""
    out: Optional[Path] = None
    """Folder for the trials and the result (default: RUN/stress)."""
    disturbances: Tuple[str, ...] = ()
    """Settings of realism to try, e.g. light_gradient=30 looks=harsh (default: two or three
    strengths of each)."""
    trials: int = 50
    """Number of trials of each row."""
    seed: int = 1000000
    """Seed of the first trial; keep it away from the seeds of collection."""
    action_choice: ActionChoice = MODE
    """How to choose an action: the mode of the policy, a sample of it, or max_q."""
    workers: int = 1
    """Processes to run in, 0 for one per core; each takes a row at a time."""
    sim: SimOptions = SimOptions(image_size=0)

    def run(self) -> None:
        """Record the rows that are missing, print the table, write the picture."""
        from ofrl_robot.evaluation.stress import Trials, disturbances, run_stress
        from ofrl_robot.pages.stress_plot import write_picture
        from ofrl_robot.policy.checkpoint import resolve_checkpoint
        from ofrl_robot.policy.policy import Policy
        from ofrl_robot.processes import available_cores

        at_least("trials", self.trials, 1)
        at_least("workers", self.workers, 0)
        require_seeds(self.seed, self.trials)
        if self.sim.sim_backend != "embedded":
            raise ConfigError(
                f"the {self.sim.sim_backend} simulator has no looks to disturb",
                "leave --sim-backend out",
            )
        rows = disturbances(self.disturbances, self.sim.realism)
        checkpoint = resolve_checkpoint(self.policy)
        policy = Policy(checkpoint, self.action_choice)
        self._require_simulated(policy)
        out = self.out or _default_folder(self.policy)
        workers = min(self.workers or available_cores(), len(rows))
        trials = Trials(checkpoint, self.action_choice, self.sim, self.seed, self.trials, out)
        print(f"policy: {checkpoint}")
        result = _with_bar(run_stress(trials, rows, policy, workers), len(rows))
        print("\n".join([*_table(result), *result.lines()]))
        print(f"result: {out / 'stress.json'}")
        print(f"picture: {write_picture(result, out)}")

    def _require_simulated(self, policy: Any) -> None:
        """Raise OfrlError unless the policy fits the simulated robot and its task is simulated."""
        from ofrl_robot.evaluation.simulated import rig_for
        from ofrl_robot.sim.tasks import REGISTRY

        header = policy.header
        if header.task not in REGISTRY:
            raise ConfigError(
                f"trained on {header.task!r:.80} of robot {header.robot!r:.80}, which is no "
                "simulated task",
                "stress needs a policy whose task the simulator has",
                policy.path,
            )
        rig_for(policy, self.sim).close()


def _default_folder(policy: Path) -> Path:
    """Return the folder for stress of the run that a path belongs to."""
    from ofrl_robot.training import run_folder

    run = policy if policy.is_dir() else policy.absolute().parent.parent
    if not (run / run_folder.CONFIG).is_file():
        raise ConfigError("is in no run folder", "name a folder with --out", policy)
    return run / run_folder.STRESS


def _with_bar(results: Any, total: int) -> Any:
    """Show a progress bar while ``results`` come, one for each row; return the last."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("rows"),
        BarColumn(bar_width=16),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[last]}"),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    result, shown = None, set()
    with bar:
        task = bar.add_task("", total=total, last="")
        for result in results:
            newest = [row for row in result.rows if row.realism not in shown][-1]
            shown = {row.realism for row in result.rows}
            last = f"{newest.name}: {newest.k}/{newest.n}"
            bar.update(task, completed=len(result.rows), last=last)
    return result


def _table(result: Any) -> Tuple[str, ...]:
    """Return the lines of the table."""
    width = max(len(row.name) for row in result.rows)
    head = f"{'disturbance':<{width}}      k/n     %  Wilson 95 %  lost gained        p"
    lines = [head]
    for row in result.rows:
        low, high = (100.0 * limit for limit in row.interval)
        rate = f"{row.k}/{row.n}"
        lines.append(
            f"{row.name:<{width}}  {rate:>7}  {100.0 * row.k / max(1, row.n):4.0f}  "
            f"{low:4.0f}-{high:3.0f}     {row.lost:5d} {row.gained:6d}  {row.p:7.2g}"
            f"{'  sensitive' if row.sensitive else ''}"
        )
    return tuple(lines)
