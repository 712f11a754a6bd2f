"""Our CQL beside d3rlpy's: the same problem, transitions, batches and settings, several seeds.

The problem: a point with inertia and drag has to stop at a mark, 40 steps at most. There are two
marks, and each episode of the data heads for either with probability 1/2, noisily. Only stopping
at the first gives a reward, of 1, and ends the episode. Imitation, which does not look at
rewards, ends between the marks.

Each side has a process of its own, of one thread; they take turns. Both CQLs are given the same
batches in the same order, and their deterministic policies the same trials, by the same code.
What neither can be told to do like the other:

- ``plain``: d3rlpy's target evaluates tanh of the policy's mean, ours a sample of the policy. With
  ``max`` both take the best of N samples (the minimum over critics first): the same definition.
- d3rlpy lets the actor climb the critics after their step, ours before it.
- d3rlpy's temperature loss has the temperature as a factor, ours its logarithm.
- First weights: torch's in d3rlpy, smaller last layers in ours. ``--first-weights torch`` takes
  torch's for ours too.
- d3rlpy sums the conservative term's actions, ours averages them: a constant, without gradient.

``shipped`` is ours with the defaults that ship wherever d3rlpy has no counterpart: a warm start
(a quarter of the steps, as 2000 of 8000), the averaged actor (rate 0.002), log std in [-5, 2].
What both have in common stays as it is given here.

Trials of one run share its policy, so runs are what is compared: p is that of the exact
permutation test of the runs' means (two-sided). The intervals beside it are Wilson's, of all
trials of all runs; they do not know that.

    python bench/agreement.py
    python bench/agreement.py --peers-python other/venv/bin/python --json agreement.json
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
from command import Command, write_json
from contestant import Contestant, Order, serve

EPISODE_STEPS = 40
DRAG, FORCE = 0.8, 0.04  # velocity <- DRAG velocity + FORCE action, per step
RADIUS, STOPPED = 0.12, 0.06  # of the mark; velocity that counts as stopping
PULL, DAMPING, NOISE = 2.0, 4.0, 0.8  # of those who made the data
TRIAL_SEEDS = 1_000_000  # the first of them: the data's start at 0

DISCOUNT, LEARNING_RATE, TARGET_RATE = 0.95, 1e-3, 0.02
CQL_WEIGHT, TEMPERATURE, LOG_STD = 0.1, 0.1, (-20.0, 2.0)

TARGETS = ("plain", "max")
SHIPPED = "shipped"

Act = Callable[[np.ndarray], np.ndarray]


# -- the problem ------------------------------------------------------------------------------


class Points:
    """One point for each seed, all moved at once; positions (n, 2) within [-1, 1]."""

    def __init__(self, seeds: Sequence[int]) -> None:
        places = np.stack([self._places(np.random.default_rng(seed)) for seed in seeds], 1)
        self.position, self.goal, self.decoy = places
        self.velocity = np.zeros_like(self.position)

    @staticmethod
    def _places(rng: np.random.Generator) -> np.ndarray:
        """Start, goal and decoy (3, 2), all more than 0.5 apart."""
        while True:
            places = rng.uniform(-0.9, 0.9, (3, 2))
            if np.linalg.norm(places - np.roll(places, 1, 0), axis=1).min() > 0.5:
                return places

    def observe(self) -> np.ndarray:
        """Position, velocity per 0.2, goal and decoy seen from here: float32 (n, 8)."""
        marks = (self.goal - self.position, self.decoy - self.position)
        columns = (self.position, self.velocity / 0.2) + marks
        return np.concatenate(columns, 1).astype(np.float32)

    def advance(self, actions: np.ndarray) -> np.ndarray:
        """Move by actions (n, 2) within [-1, 1]; returns who has stopped at the goal, (n,)."""
        self.velocity = DRAG * self.velocity + FORCE * actions.clip(-1.0, 1.0)
        wanted = self.position + self.velocity
        self.position = wanted.clip(-1.0, 1.0)
        self.velocity = np.where(wanted == self.position, self.velocity, 0.0)
        near = np.linalg.norm(self.goal - self.position, axis=1) < RADIUS
        return near & (np.linalg.norm(self.velocity, axis=1) < STOPPED)


class Transitions(NamedTuple):
    """Columns of n transitions: float32 (n, 8), (n, 2), (n, 8) and bool (n,). ``reached`` is both
    the reward and the terminal."""

    observations: np.ndarray
    actions: np.ndarray
    next_observations: np.ndarray
    reached: np.ndarray


def rollout(points: Points, act: Act) -> Tuple[np.ndarray, Transitions]:
    """Steps that each took to the goal (0 where it was not reached), and what happened."""
    steps = np.zeros(len(points.position), int)
    rows: List[Transitions] = []
    observations = points.observe()
    for step in range(1, EPISODE_STEPS + 1):
        actions = act(observations).astype(np.float32)
        reached = points.advance(actions)
        following = points.observe()
        row = Transitions(observations, actions, following, reached)
        rows.append(Transitions(*(column[steps == 0] for column in row)))
        steps[(steps == 0) & reached] = step
        observations = following
    return steps, Transitions(*(np.concatenate(columns) for columns in zip(*rows)))


def collect(episodes: int) -> Tuple[np.ndarray, Transitions]:
    """:func:`rollout` of those who make the data: each heads for one of the marks."""
    rng = np.random.default_rng(0)
    to_goal = rng.random((episodes, 1)) < 0.5

    def act(observations: np.ndarray) -> np.ndarray:
        velocity, goal, decoy = (
            0.2 * observations[:, 2:4],
            observations[:, 4:6],
            observations[:, 6:],
        )
        wanted = PULL * np.where(to_goal, goal, decoy) - DAMPING * velocity
        return (wanted + NOISE * rng.standard_normal(wanted.shape)).clip(-1.0, 1.0)

    return rollout(Points(range(episodes)), act)


def evaluate(act: Act, trials: int) -> Tuple[int, float]:
    """How many of the fixed trials reach the goal, and the mean discounted return."""
    steps, _ = rollout(Points(range(TRIAL_SEEDS, TRIAL_SEEDS + trials)), act)
    return int((steps > 0).sum()), float(np.where(steps > 0, DISCOUNT ** (steps - 1.0), 0.0).mean())


# -- a process that trains: imports what it needs, then answers each seed ----------------------


class Learned(NamedTuple):
    """Deterministic policy, and the mean of the critics (None without) at (n, 8) and (n, 2)."""

    act: Act
    q: Any = None


def batches(data: Transitions, order: Order) -> Iterator[Transitions]:
    rng = np.random.default_rng(order["seed"])
    for _ in range(order["steps"]):
        index = rng.integers(len(data.reached), size=order["batch_size"])
        yield Transitions(*(column[index] for column in data))


def start_as_torch(algorithm: Any) -> None:
    """Draw again, as torch does, the layers of our CQL that start otherwise."""
    import torch

    algorithm.actor.head[-1].reset_parameters()
    heads = algorithm.critic.heads
    state, action = heads.code_layer, heads.action_layer  # one layer of both in d3rlpy
    heads_count, inputs, outputs = state.weight.shape
    for number in range(heads_count):
        heads.output[-1].reset(number)
        whole = torch.nn.Linear(inputs + action.weight.shape[1], outputs)
        with torch.no_grad():
            state.weight[number] = whole.weight.T[:inputs]
            action.weight[number] = whole.weight.T[inputs:]
            state.bias[number] = whole.bias
    algorithm.target_critic.load_state_dict(algorithm.critic.state_dict())


def prepare_ours() -> Callable[[Transitions, Order], Learned]:
    import torch

    from ofrl_robot.algos.build import Build, make_algorithm
    from ofrl_robot.algos.configs.bc import BCConfig
    from ofrl_robot.algos.configs.cql import CQLConfig
    from ofrl_robot.data.replay.batch import Batch
    from ofrl_robot.nets.config import NetConfig
    from ofrl_robot.specs import STATE, ActionSpec

    def learn(data: Transitions, order: Order) -> Learned:
        torch.manual_seed(order["seed"])
        shipped = order["name"] == SHIPPED
        shared = dict(actor_lr=LEARNING_RATE, shift=0)
        if not shipped:
            shared.update(actor_average=1.0)
        if order["name"] == "bc":
            config = BCConfig(**shared)
        else:
            if order["name"] == "max":
                shared.update(max_backup="min_max", backup_actions=order["samples"])
            config = CQLConfig(
                discount=DISCOUNT, critic_lr=LEARNING_RATE, target_rate=TARGET_RATE,
                initial_alpha=TEMPERATURE, cql_weight=CQL_WEIGHT,
                cql_samples=(order["samples"],) * 3,
                warm_start_steps=order["steps"] // 4 if shipped else 0, **shared,
            )  # fmt: skip
        bounds = {} if shipped else dict(zip(("log_std_min", "log_std_max"), LOG_STD))
        nets = NetConfig(hidden=tuple(order["hidden"]), **bounds)
        spec = ActionSpec(("x", "y"), ("1", "1"), (1.0, 1.0), "world")
        shapes = {STATE: data.observations.shape[1:]}
        algorithm = make_algorithm(config, Build(nets, shapes, spec, torch.device("cpu")))
        if order["first_weights"] == "torch" and order["name"] != "bc":
            start_as_torch(algorithm)
        for batch in batches(data, order):
            reached = batch.reached.astype(np.float32)
            algorithm.update(
                Batch(
                    observations={STATE: batch.observations},
                    next_observations={STATE: batch.next_observations},
                    actions=batch.actions,
                    rewards=reached,
                    bootstrap=(config.discount * (1.0 - reached)).astype(np.float32),
                    next_actions=batch.actions,
                    has_next_action=np.zeros_like(reached),
                    returns=reached,
                )
            )

        @torch.no_grad()
        def act(observations: np.ndarray) -> np.ndarray:
            # with actor_average 1 it is the actor itself
            return algorithm.average_actor({STATE: torch.from_numpy(observations)}).mode.numpy()

        @torch.no_grad()
        def q(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
            code = algorithm.critic.encode({STATE: torch.from_numpy(observations)})
            values = algorithm.critic.q(code, torch.from_numpy(actions).unsqueeze(1))
            return values.mean(0).squeeze(1).numpy()

        return Learned(act, None if order["name"] == "bc" else q)

    return learn


def prepare_d3rlpy() -> Callable[[Transitions, Order], Learned]:
    import d3rlpy
    from d3rlpy.algos import CQLConfig
    from d3rlpy.dataset import TransitionMiniBatch
    from d3rlpy.models.encoders import VectorEncoderFactory

    def learn(data: Transitions, order: Order) -> Learned:
        d3rlpy.seed(order["seed"])
        hidden = VectorEncoderFactory(hidden_units=list(order["hidden"]))
        algorithm = CQLConfig(
            gamma=DISCOUNT, tau=TARGET_RATE, actor_learning_rate=LEARNING_RATE,
            critic_learning_rate=LEARNING_RATE, temp_learning_rate=LEARNING_RATE,
            initial_temperature=TEMPERATURE, actor_encoder_factory=hidden,
            critic_encoder_factory=hidden, conservative_weight=CQL_WEIGHT,
            n_action_samples=order["samples"], max_q_backup=order["name"] == "max",
            alpha_learning_rate=0.0, alpha_threshold=0.0,  # no multiplier: it stays at 1
        ).create(device="cpu:0")  # fmt: skip
        algorithm.create_impl(data.observations.shape[1:], data.actions.shape[1])
        for batch in batches(data, order):
            reached = batch.reached[:, None].astype(np.float32)
            algorithm.update(
                TransitionMiniBatch(
                    observations=batch.observations, actions=batch.actions, rewards=reached,
                    next_observations=batch.next_observations, next_actions=batch.actions,
                    terminals=reached, intervals=np.ones_like(reached), transitions=[],
                )
            )  # fmt: skip
        return Learned(algorithm.predict, algorithm.predict_value)

    return learn


SIDES = {"ours": prepare_ours, "d3rlpy": prepare_d3rlpy}


def prepare(side: str, file: str) -> Callable[[Order], Order]:
    """The function that trains as it is ordered and answers how well that went."""
    learn = SIDES[side]()
    with np.load(file, allow_pickle=False) as columns:
        data = Transitions(**columns)
    uniform = np.random.default_rng(0).uniform(-1.0, 1.0, data.actions.shape).astype(np.float32)

    def run(order: Order) -> Order:
        started = time.process_time()
        learned = learn(data, order)
        successes, mean_return = evaluate(learned.act, order["trials"])
        result = {"successes": successes, "return": mean_return}
        if learned.q is not None:
            result["data_q"] = float(learned.q(data.observations, data.actions).mean())
            result["uniform_q"] = float(learned.q(data.observations, uniform).mean())
        return {**result, "cpu_s": time.process_time() - started}

    return run


# -- the process that compares ----------------------------------------------------------------


def permutation_p(left: Sequence[float], right: Sequence[float]) -> float:
    """Share of all ways to divide the runs in two that set their means as far apart or further."""
    runs, size = list(left) + list(right), len(left)

    def distance(chosen: Tuple[int, ...]) -> float:
        inside = [runs[i] for i in chosen]
        outside = [run for i, run in enumerate(runs) if i not in chosen]
        return abs(statistics.mean(inside) - statistics.mean(outside))

    observed = distance(tuple(range(size)))
    ways = [distance(chosen) for chosen in itertools.combinations(range(len(runs)), size)]
    return sum(way >= observed - 1e-12 for way in ways) / len(ways)


def compare(file: str, arguments: argparse.Namespace) -> Dict[str, Any]:
    """Every run, and the tests of ours against d3rlpy's where that is installed."""
    names = ("steps", "batch_size", "hidden", "samples", "trials", "first_weights")
    settings = {name: getattr(arguments, name) for name in names}
    sides: Dict[str, Contestant] = {}
    runs: Dict[str, List[Order]] = {}

    def ask(side: str, name: str, seed: int) -> None:
        answer = sides[side].ask(dict(settings, name=name, seed=seed))
        runs.setdefault(f"{side} {name}", []).append(answer)
        row = (seed, side, name, answer["successes"], arguments.trials, answer["cpu_s"])
        print("seed {}: {} {}: {}/{}, {:.0f} s of CPU".format(*row), file=sys.stderr)

    try:
        for side, python in (("ours", sys.executable), ("d3rlpy", arguments.peers_python)):
            sides[side] = Contestant(python, __file__, [side, file], None)
        if sides["ours"].error:
            sys.exit(f"bench: {sides['ours'].error}")
        for seed in range(arguments.seeds):
            ask("ours", "bc", seed)
            ask("ours", SHIPPED, seed)
            for target in arguments.targets:
                for side in sides:
                    if not sides[side].error:
                        ask(side, target, seed)
    finally:
        for contestant in sides.values():
            contestant.close()
    result: Dict[str, Any] = {"settings": settings, "runs": runs, "tests": {}}
    if sides["d3rlpy"].error:
        result["error"] = sides["d3rlpy"].error
        return result
    for target in arguments.targets:
        both = [runs[f"{side} {target}"] for side in sides]
        result["tests"][target] = {
            key: permutation_p(*([run[key] for run in side] for side in both))
            for key in ("successes", "return", "data_q", "uniform_q")
        }
    return result


def report(result: Dict[str, Any]) -> str:
    from ofrl_robot.evaluation.trials import rate_text, wilson

    trials = result["settings"]["trials"]
    lines = ["{:<16}{:<46}{:>8}{:>9}{:>12}   {}".format(
        "", "all runs", "return", "data Q", "uniform Q", "by seed")]  # fmt: skip
    lines.append(f"{'behaviour':<16}{rate_text(*result['behaviour'])}")
    pooled = {}
    for name, runs in result["runs"].items():
        counts = [run["successes"] for run in runs]
        pooled[name] = sum(counts), trials * len(runs)
        columns = ["-" if key not in runs[0] else (
            f"{statistics.mean(run[key] for run in runs):.3f}"
        ) for key in ("return", "data_q", "uniform_q")
        ]  # fmt: skip
        lines.append("{:<16}{:<46}{:>8}{:>9}{:>12}   {}".format(
            name, rate_text(*pooled[name]), *columns, " ".join(map(str, counts))))  # fmt: skip
    for target, tests in result["tests"].items():
        low, high = zip(*(wilson(*pooled[f"{s} {target}"]) for s in ("ours", "d3rlpy")))
        overlap = max(low) <= min(high)
        lines.append("{}: intervals {}; p of a difference between runs: {}".format(
            target, "overlap" if overlap else "do not overlap",
            ", ".join("{} {:.2f}".format(*item) for item in tests.items())))  # fmt: skip
    if "error" in result:
        lines.append(f"d3rlpy was not measured: {result['error']}")
    return "\n".join(lines)


def main() -> None:
    command = Command(__doc__, serve_words=2)
    number = command.number
    number("--episodes", default=200, help="of the data (default: 200)")
    number("--seeds", default=5, help="trainings of each (default: 5)")
    number("--steps", default=2000, help="gradient steps of a training (default: 2000)")
    number("--batch-size", default=256, help="transitions (default: 256)")
    number(
        "--samples", default=4, help="actions of each kind in the conservative term (default: 4)"
    )
    number("--hidden", nargs="+", default=[64, 64], help="units of the layers (default: 64 64)")
    number("--trials", default=100, help="that judge a training (default: 100)")
    command.parser.add_argument(
        "--targets", nargs="+", choices=TARGETS, default=list(TARGETS),
        help="see above (default: both)",
    )  # fmt: skip
    command.parser.add_argument(
        "--first-weights", choices=("ours", "torch"), default="ours",
        help="of our CQL (default: ours)",
    )  # fmt: skip
    command.add_interpreter("--peers-python", "d3rlpy")
    sizes = ("episodes", "seeds", "steps", "batch_size", "samples", "trials", "hidden")
    arguments = command.parse(positive=sizes)
    if arguments.serve:
        return serve(functools.partial(prepare, *arguments.serve))
    steps, data = collect(arguments.episodes)
    with tempfile.TemporaryDirectory(prefix="ofrl-bench-") as folder:
        file = str(Path(folder) / "transitions.npz")
        np.savez(file, **data._asdict())
        result = compare(file, arguments)
    result["behaviour"] = int((steps > 0).sum()), arguments.episodes
    print(
        f"{len(data.reached)} transitions of {arguments.episodes} episodes; "
        f"{arguments.steps} gradient steps a training"
    )
    print(report(result))
    write_json(arguments.json, result)


if __name__ == "__main__":
    main()
