"""Every fault that `ofrl rehearse` plays, as tests; and that a broken promise is told."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from ofrl_robot.pages.rehearsal import Result, broken, report, write_rehearsal
from ofrl_ros.rehearsal import run
from ofrl_ros.rehearsal.scenario import within
from ofrl_ros.rehearsal.stage import Cast, Stage

SCENARIOS = run.all_scenarios()
MASTER_DIES = "kill -9 of the ROS master"  # it would take the other tests along: see below


@pytest.fixture(scope="module")
def shared(master, tmp_path_factory):
    """One stage for the faults after which a node can be armed again."""
    stages = []

    def stage():
        if not stages:
            stages.append(Stage(tmp_path_factory.mktemp("shared"), master, Cast()))
        return stages[0]

    yield stage
    for one in stages:
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario", [s for s in SCENARIOS if s.name != MASTER_DIES], ids=lambda s: s.name
)
def test_a_promise_is_kept(scenario, shared, master, tmp_path):
    if not scenario.own_stage:
        result = run.play(scenario, shared())
    else:
        stage = Stage(tmp_path, master, Cast(), scenario.with_camera)
        try:
            result = run.play(scenario, stage)
        finally:
            stage.close()
    assert result.kept, result.line()


def test_a_broken_promise_is_told(master, tmp_path):
    """The same arm without its watch over the recorder."""
    (scenario,) = run.choose(["recorder's heartbeat stops"])

    class Careless(Stage):
        def _limits(self):
            path = super()._limits()
            values = yaml.safe_load(path.read_text())
            values["max_recorder_silence"] = 1000.0
            path.write_text(yaml.safe_dump(values))
            return path

    stage = Careless(tmp_path, master, Cast())
    try:
        result = run.play(scenario._replace(bound=within(0.1)), stage)
    finally:
        stage.close()
    assert not result.kept and "instead of recorder_silent" in result.seen


def test_the_page_shows_every_fault_and_what_was_broken(tmp_path):
    rows = [
        Result("NaN", "Commands", "hold", 0.5, True, 0.2, "actor_silent after 0.2 s"),
        Result("<b>", "Commands", "stop", None, False, None, "it drove on"),
    ]
    data = report("sim", 10, "abc", rows, "2026-01-02T03:04:05+00:00")
    page = write_rehearsal(tmp_path, data).read_text()
    assert "1 of 2 promises were kept" in page and "&lt;b&gt;" in page and "it drove on" in page
    assert broken(rows) == ["<b>"]
    assert [dataclasses.asdict(row) for row in rows] == data["results"]
