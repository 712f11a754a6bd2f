import dataclasses

import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.summary import CONVERTED, describe, summary
from ofrl_robot.data.episodes.reader import read_meta
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS, UNKNOWN
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import DatasetError
from ofrl_robot.specs import WIDOWX_ACTION


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make):
    folder = tmp_path_factory.mktemp("dataset")
    cases = [(2, SUCCESS), (4, FAILURE), (4, SUCCESS), (6, UNKNOWN)]
    for seed, (steps, label) in enumerate(cases):
        meta = make.meta(actor="scripted", operator="ann" if seed else "")
        make.episode(folder, steps, seed, label, meta, cut=label != SUCCESS)
    return folder


def test_summary_counts(folder, make):
    data = summary(folder)
    assert (data["episodes"], data["transitions"]) == (4, 16)
    assert data["lengths"] == {"min": 2, "median": 4.0, "max": 6}
    assert data["labels"] == {"success": 2, "failure": 1, "unknown": 1}
    assert data["first_success_step"] == 3.0  # rewards come at steps 2 and 4 of two episodes
    assert data["reward_values"] == {0.0: 14, 1.0: 2} and data["reward_sum"] == 2.0
    assert (data["operators"], data["actors"]) == (["ann"], ["scripted"])
    applied = [a for seed, n in enumerate((2, 4, 4, 6)) for a in make.ticks(n, seed)[1]]
    assert data["limited"] == pytest.approx(np.mean([a.limited for a in applied]))
    assert data["interventions"] == pytest.approx(np.mean([a.intervention for a in applied]))
    actions = np.array([a.action for a in applied])
    assert [row["std"] for row in data["actions"].values()] == pytest.approx(actions.std(0))


def test_description_names_everything_and_is_aligned(folder):
    lines = describe(folder)
    text = "\n".join(lines)
    for word in WIDOWX_ACTION.names + ("Task-v0", "2 success (50 %)", "6x6", "5 Hz nominal"):
        assert word in text
    assert len({len(line) for line in lines[-WIDOWX_ACTION.size - 1 :]}) == 1


def test_environment_is_shown_when_it_is_one(tmp_path, make):
    def row():
        return next(line for line in describe(tmp_path) if line.startswith("environment"))

    make.episode(tmp_path, meta=make.meta(environment={"sim_backend": "embedded", "noise": 0.1}))
    assert row().split(None, 1)[1] == "noise=0.1, sim_backend=embedded"
    make.episode(tmp_path)
    assert row().split(None, 1)[1] == "mixed (2 settings)"


def test_no_reward_at_all(tmp_path, make):
    make.episode(tmp_path, cut=True)
    assert summary(tmp_path)["first_success_step"] is None
    assert "never" in "\n".join(describe(tmp_path))


def test_a_damaged_episode_is_named(tmp_path, make):
    path, _, _ = make.episode(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=path.name):
        describe(tmp_path)


def row_of(folder, name):
    return next(line for line in describe(folder) if line.startswith(name)).split(None, 1)[1]


def record_rewards(folder, make, rewards, meta=None):
    ticks, applied = make.ticks(len(rewards))
    for tick, reward in zip(ticks[1:], rewards):
        tick.reward = reward
    folder.mkdir(exist_ok=True)
    writer = EpisodeWriter(folder, meta or make.meta())
    make.record(writer, ticks, applied)
    return writer.finish(UNKNOWN, "")


def test_dense_rewards_are_a_range_and_not_a_list(tmp_path, make):
    rewards = np.linspace(-1, 0.5, 40)
    record_rewards(tmp_path, make, rewards)
    data = summary(tmp_path)
    assert data["reward_values"] == {} and data["reward_distinct"] == 40
    assert data["reward_range"] == {"min": -1.0, "max": 0.5}
    assert row_of(tmp_path, "rewards") == "sum -10; -1 to 0.5, 40 distinct values"


def test_the_date_of_converted_data_is_that_of_the_recording(tmp_path, make):
    path, _, _ = make.episode(tmp_path / "simulated")
    today = read_meta(path)[0].created[:10]
    assert row_of(tmp_path / "simulated", "recorded") == today
    make.episode(tmp_path / "foreign", meta=make.meta(actor=CONVERTED))
    assert row_of(tmp_path / "foreign", "recorded") == f"converted {today}"
    make.episode(tmp_path / "ours", meta=make.meta(recorded="2024-05-17T10:00:00+00:00"))
    assert row_of(tmp_path / "ours", "recorded") == "2024-05-17"
    with_clock = make_real_time(tmp_path / "clock", make, 1_700_000_000)
    assert row_of(with_clock, "recorded") == "2023-11-14"


def make_real_time(folder, make, start):
    """An episode of another format with the stamps of a real clock, from ``start`` s on."""
    folder.mkdir()
    ticks, applied = make.ticks(3)
    writer = EpisodeWriter(folder, make.meta(actor=CONVERTED))
    shift = start * 10**9
    ticks = [dataclasses.replace(t, stamp_ns=t.stamp_ns + shift) for t in ticks]
    applied = [dataclasses.replace(a, stamp_ns=a.stamp_ns + shift) for a in applied]
    make.record(writer, ticks, applied)
    writer.finish(UNKNOWN, "")
    return folder


@pytest.mark.slow
def test_escape_sequences_in_attributes_do_not_reach_the_terminal(tmp_path, make, capsys):
    evil = "\x1b[2Jred\nfaked line\u202e"
    make.episode(tmp_path, meta=make.meta(operator=evil, environment={"a": evil}))
    for verb in (["info"], ["verify", "--workers", "1"]):
        assert main(["data", *verb, str(tmp_path)]) == 0
        text = capsys.readouterr().out
        assert "\x1b" not in text and "\u202e" not in text and "\nfaked" not in text
    assert row_of(tmp_path, "operator") == r"\x1b[2Jred\nfaked line\u202e"
