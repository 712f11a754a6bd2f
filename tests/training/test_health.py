"""What counts as diverged."""

from __future__ import annotations

import math

import pytest

from ofrl_robot.algos.build import Build, make_algorithm
from ofrl_robot.specs import WIDOWX_ACTION
from ofrl_robot.training.health import problems, value_limit
from tests.training.small_run import HYPER, NETS

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("rewards", "limit"), [((0.0, 1.0), 1000.0), ((-3.0, 1.0), 3000.0), ((0.0, 1e-3), 100.0)]
)
def test_the_limit_follows_the_range_of_returns(rewards, limit):
    """100 times the largest return in absolute value, discount 0.9, and never below 100."""
    import torch

    cpu = torch.device("cpu")
    build = Build(NETS, {"image": (12, 12, 3)}, WIDOWX_ACTION, cpu, reward_range=rewards)
    cql = make_algorithm(HYPER["cql"], build)
    assert value_limit(cql) == pytest.approx(limit)
    bc = make_algorithm(HYPER["bc"], build)
    assert value_limit(bc) == math.inf


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"data_q": 99.0, "td_error": 9999.0, "cql_term": -1e9}, []),
        ({"data_q": 101.0}, ["data_q is 101, beyond 100 (100 times the range of returns)"]),
        ({"data_q": -1e4}, []),  # a conservative term does that; it is overfit, not diverged
        ({"td_error": 10001.0}, ["td_error is 1e+04, beyond 100 squared"]),
        ({"data_q": NAN, "alpha": INF, "td_error": 0.0}, ["data_q is nan", "alpha is inf"]),
        ({"actor_loss": -INF}, ["actor_loss is -inf"]),
    ],
)
def test_each_problem_is_said_once(row, words):
    assert problems(row, 100.0) == words


def test_imitation_has_no_limit():
    assert problems({"actor_loss": 1e30, "data_log_prob": -1e30}, math.inf) == []
