"""The HTML page: well-formed, self-contained, true to the files, written whole or not at all."""

from __future__ import annotations

import base64
import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from ofrl_robot.cli import main
from ofrl_robot.errors import DatasetError, OfrlError, OutputError
from ofrl_robot.evaluation.stress import Stress, StressRow
from ofrl_robot.pages.film_strip import MOST_OTHERS, MOST_SUCCESSES, choose, film_strip
from ofrl_robot.pages.plots import Measured, _rates
from ofrl_robot.pages.run_report import write_report
from ofrl_robot.policy.checkpoint import checkpoint_hash
from ofrl_robot.training import run_folder
from tests.run_factory import TASK

PEAKED = np.interp(np.linspace(0, 1, 12), [0, 0.4, 1], [0, 1, 0.2])
VOID = {"meta", "img", "br", "rect", "path", "circle", "hr", "link", "input"}
SUCCESS, FAILURE, UNKNOWN = 1, 0, -1


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; fails on tags that do not match up."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.text = ""
        self._open: List[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag
        if tag in ("td", "th"):
            self.text += " "

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.text += data

    def images(self, within: str = "") -> List[Dict[str, Optional[str]]]:
        return [a for tag, a in self.tags if tag == "img" and a["alt"].startswith(within)]


def policy_of(run: Path, step: int, choice: str = "mode") -> dict:
    path = run_folder.checkpoint_path(run, step)
    return {"checkpoint": str(path), "sha256": checkpoint_hash(path), "algo": "cql", "step": step,
            "action_choice": choice}  # fmt: skip


@pytest.fixture
def run(make_run, metrics):
    return make_run(metrics(PEAKED), warm_start=1000)


@pytest.fixture
def without_curves(monkeypatch):
    """For tests that do not look at the curves: drawing them takes most of a page's second."""
    monkeypatch.setattr("ofrl_robot.pages.run_report.pictures", lambda *_: [])


@pytest.mark.slow
def test_the_page_says_what_the_files_say(run, record, tmp_path):
    labels = [SUCCESS] * 5 + [FAILURE] * 2 + [UNKNOWN] + [SUCCESS]
    folder = record(tmp_path / "trials", labels, aborted=[8], actor="policy",
                    policy=policy_of(run, 2500))  # fmt: skip
    path = write_report(run, [folder])
    assert path == run / "report" / "report.html"
    page = Page(path)
    assert "The critic overfits. Dataset Q fell after a peak. Deploy step 2,500" in page.text
    assert "Retrain with less capacity: a variational bottleneck" in page.text
    assert "--bottleneck --out" in page.text and "--name run-bottleneck" in page.text
    assert "No rollout entered the verdict" in page.text
    assert "thresholds are this project’s own" in page.text
    assert "CQL step 2,500, deterministic" in page.text
    assert "5/8 62 %" in page.text
    assert "31–86 % – 1 1" in page.text  # interval, no help, one without a label, one aborted
    assert "aborted: watchdog" in page.text
    strips = page.images("Frames at steps")
    assert len(strips) == MOST_SUCCESSES + 4
    assert [s["alt"].rsplit(" ", 1)[1] for s in strips[:4]] == [
        "failure", "failure", "unknown", "success",  # the last of these is the aborted one
    ]  # fmt: skip
    assert path.stat().st_size < 3e6


@pytest.mark.slow
def test_the_page_needs_nothing_from_outside(run, record, tmp_path):
    path = write_report(run, [record(tmp_path / "trials", [SUCCESS, FAILURE])])
    page = Page(path)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    style = path.read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    for image in page.images():
        code = base64.b64decode(image["src"].split(",", 1)[1], validate=True)
        assert cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR) is not None


@pytest.mark.slow
def test_every_curve_of_the_metrics_is_drawn(make_run, metrics):
    rows = metrics(np.linspace(0, 1, 12), dr3=0.5)  # a column this version does not know
    titles = [a["alt"] for a in Page(write_report(make_run(rows, warm_start=2000))).images()]
    assert [t.split(".")[0] for t in titles] == [
        "Dataset Q", "Q of the policy's actions", "Q of random actions",
        "TD error against its targets", "Conservative term", "Imitation: log-probability", "dr3",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_cloning_run_has_a_page_too(make_run, record, tmp_path):
    rows = [{"step": 500 * i, "data_log_prob": i, "action_mse": 1 / i} for i in (1, 2, 3)]
    run = make_run(rows, algo="bc")
    page = Page(write_report(run, [record(tmp_path / "trials", [SUCCESS])]))
    assert "No verdict. BC learns no Q-function to diagnose." in page.text
    assert [a["alt"].split(":")[0] for a in page.images()[:2]] == ["Imitation", "Imitation"]


@pytest.mark.slow
def test_a_diverged_run_has_a_page_too(make_run, metrics):
    page = Page(write_report(make_run(metrics([*np.linspace(0, 1, 8), np.nan]))))
    assert "Data_q became non-finite at step 4500" in page.text


@pytest.mark.slow
@pytest.mark.usefixtures("without_curves")
def test_trials_of_other_policies_are_not_passed_off_as_this_run(run, record, tmp_path):
    other = {**policy_of(run, 2500), "sha256": "0" * 64}
    foreign = record(tmp_path / "foreign", [SUCCESS], actor="policy", policy=other)
    page = Page(write_report(run, [foreign]))
    assert "CQL step 2,500, deterministic, not of this run" in page.text
    assert "to deploy" not in page.text.split("Success in trials")[1].split("Curves")[0]


@pytest.mark.slow
@pytest.mark.usefixtures("without_curves")
def test_trials_under_other_conditions_are_rows_of_their_own(run, record, tmp_path):
    places = [{"sim_backend": b, "realism": r} for b, r in (
        ("embedded", "off"), ("roboverse", "off"), ("embedded", "looks=harsh"),
    )]  # fmt: skip
    folder = tmp_path / "trials"
    for place, labels in zip(places, ([SUCCESS] * 3, [FAILURE] * 3, [SUCCESS, FAILURE])):
        record(folder, labels, actor="policy", policy=policy_of(run, 2500), environment=place)
    page = Page(write_report(run, [folder]))
    assert "5/8" not in page.text
    for rate, place in (("3/3", "embedded, realism off"), ("0/3", "roboverse, realism off"),
                        ("1/2", "embedded, realism looks=harsh")):  # fmt: skip
        above = page.text[: page.text.index(f"{TASK} on sim, {place}, 5 Hz")]
        assert rate in above[-60:], place  # the row's numbers, then where they were measured
    assert page.text.count("seeds 0-2") == 2


def test_success_rates_under_other_conditions_are_other_series():
    rates = [
        Measured(step, "mode", 0.5, 0.4, 0.6, place)
        for step in (500, 1000) for place in ("embedded", "roboverse")
    ]  # fmt: skip
    axes = Figure().add_subplot()
    _rates(axes, rates)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["deterministic: embedded", "deterministic: roboverse"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_curves")
def test_behaviour_data_is_one_more_row_and_the_policy_is_filmed(run, record, tmp_path):
    data = record(tmp_path / "data", [SUCCESS, FAILURE])
    policy = policy_of(run, 2500, "sample")
    trials = record(tmp_path / "t", [FAILURE], actor="policy", policy=policy)
    page = Page(write_report(run, [data, trials]))
    assert "scripted behaviour" in page.text and "1/2 50 %" in page.text
    assert "CQL step 2,500, sampled" in page.text
    assert len(page.images("Frames at steps")) == 1


@pytest.mark.usefixtures("without_curves")
@pytest.mark.parametrize("step", ["many", None, [1], -3, 10**30, True])
def test_a_recorded_step_that_is_none_is_not_followed(run, record, tmp_path, step):
    policy = {**policy_of(run, 2500), "step": step}
    trials = record(tmp_path / "t", [SUCCESS], actor="policy", policy=policy)
    assert "CQL step 0, deterministic, not of this run" in Page(write_report(run, [trials])).text


@pytest.mark.usefixtures("without_curves")
def test_the_verb_compares_runs(run, make_run, metrics, capsys):
    make_run(metrics(np.linspace(0, 1, 12)), name="other")
    assert main(["report", str(run), "--compare", str(run.parent / "other")]) == 0
    assert "Sibling runs" in Page(run / "report" / "report.html").text
    assert main(["report", str(run), "--compare", str(run.parent / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("without_curves")
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"action_choice": "max_q"}, "CQL step 2,500, max-Q"),
        ({"sample": True}, "CQL step 2,500, sampled"),  # as recorded before there was max_q
        ({"sample": False}, "CQL step 2,500, deterministic"),
        ({"action_choice": "best"}, "CQL step 2,500, best"),  # of a version to come
    ],
)
def test_how_the_policy_acted_is_said(run, record, tmp_path, said, words):
    policy = policy_of(run, 2500)
    del policy["action_choice"]
    trials = record(tmp_path / "t", [SUCCESS], actor="policy", policy={**policy, **said})
    assert words in Page(write_report(run, [trials])).text


@pytest.mark.usefixtures("without_curves")
def test_dataset_facts_and_a_changed_folder(make_run, metrics, record, tmp_path):
    data = record(tmp_path / "data", [SUCCESS, SUCCESS, FAILURE, UNKNOWN])
    page = Page(write_report(make_run(metrics(PEAKED), dataset=str(data))))
    assert "4, of which 2 successes (50 %)" in page.text
    assert (
        "the folder is not the one that was trained on" in page.text
    )  # its fingerprint is another


@pytest.mark.usefixtures("without_curves")
def test_siblings_are_tabled(make_run, metrics, run):
    bigger = make_run(metrics(np.linspace(0, 1, 12), td_error=0.05), name="bigger")
    page = Page(write_report(run, compare=[bigger]))
    assert "Sibling runs" in page.text and "bigger good 6,000" in page.text
    assert "0.1 " in page.text and "0.05 " in page.text


@pytest.mark.usefixtures("without_curves")
def test_names_are_escaped(run, record, tmp_path):
    folder = record(tmp_path / "<b>&", [FAILURE], actor="<script>alert(1)</script>")
    page = Page(write_report(run, [folder]))
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script>alert(1)</script> behaviour" in page.text


# -- what cannot be read or written -----------------------------------------------------------


@pytest.mark.usefixtures("without_curves")
def test_missing_trials_leave_no_page(run, tmp_path):
    with pytest.raises(OfrlError, match="no such dataset folder"):
        write_report(run, [tmp_path / "nowhere"])
    assert not (run / "report").exists()


@pytest.mark.usefixtures("without_curves")
def test_a_damaged_episode_leaves_the_old_page(run, record, tmp_path):
    path = write_report(run)
    before = path.read_bytes()
    folder = record(tmp_path / "trials", [SUCCESS])
    episode = next(folder.glob("*.h5"))
    episode.write_bytes(episode.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=episode.name):
        write_report(run, [folder])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("without_curves")
def test_places_that_cannot_be_written(run, tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        write_report(run, out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(run, out=tmp_path / "file" / "report.html")


@pytest.mark.usefixtures("without_curves")
def test_another_place_and_a_removed_checkpoint(run, tmp_path):
    run_folder.checkpoint_path(run, 2500).unlink()
    page = Page(write_report(run, out=tmp_path / "new" / "page.html"))
    assert "(missing)" in page.text
    assert not (run / "report").exists()


# -- film strips ------------------------------------------------------------------------------


@pytest.mark.parametrize("size, kind", [(8, "png"), (48, "png"), (64, "png"), (240, "jpeg")])
def test_a_strip_is_eight_frames_of_about_96_pixels(record, tmp_path, size, kind):
    folder = record(tmp_path / "t", [SUCCESS], size=size)
    row = {"file": "episode_000000.h5", "seed": 7, "label": "success", "steps": 9,
           "abort_reason": ""}  # fmt: skip
    strip = film_strip(folder, row, camera="no such camera")
    image = cv2.imdecode(np.frombuffer(strip.image, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1::-1] == strip.size
    assert 64 <= strip.size[1] <= 96 and strip.size[0] == 8 * strip.size[1] + 7 * 4
    assert (strip.shown[0], strip.shown[-1], len(strip.shown)) == (0, 9, 8)
    assert strip.kind == f"image/{kind}" and strip.name == "seed 7"


def test_all_that_went_wrong_is_shown_up_to_a_bound():
    def rows(label: str, count: int, abort: str = "") -> list:
        return [{"label": label, "abort_reason": abort, "n": i} for i in range(count)]

    wrong = rows("failure", 3) + rows("unknown", 1) + rows("success", 1, "watchdog")
    chosen = choose(rows("success", 20) + wrong)
    assert chosen == wrong + rows("success", MOST_SUCCESSES)
    assert len(choose(rows("failure", 50))) == MOST_OTHERS


# -- stress ----------------------------------------------------------------------------------


def stress_of(policy, weak_k=10):
    row = StressRow(
        "undisturbed", "", "off", 49, 50, (0.9, 0.99), 0, 0, 1.0, "seeds 0-49", "embedded", 24.0,
        "mode", 0.5,
    )  # fmt: skip
    weak = dataclasses.replace(
        row, disturbance="light_gradient", value="30", realism="light_gradient=30", k=weak_k,
        interval=(0.1, 0.3), lost=49 - weak_k, p=1e-9, picture_score=None,
    )  # fmt: skip
    return Stress(policy, TASK, 0, 50, (row, weak))


def test_what_a_policy_is_sensitive_to_is_in_the_page(run, without_curves):
    assert "sensitive" not in Page(write_report(run)).text
    (run / "stress").mkdir()
    (run / "stress" / "stress.json").write_text(stress_of(policy_of(run, 3000)).to_json())
    page = Page(write_report(run))
    assert "What the policy is sensitive to" in page.text
    assert "Sensitive to light_gradient 30: 10/50 instead of 49/50 (39 lost" in page.text
    assert "light_gradient 30 10/50 10–30 % 39 0 1e-09 –" in page.text
    assert "step 3,000, deterministic; embedded, 24 Hz" in page.text
    assert "not of this run" not in page.text
    (image,) = page.images("Success rate with its interval under each disturbance")
    png = base64.b64decode(image["src"].split(",")[1])
    assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).std() > 1.0


def test_a_stress_of_another_policy_is_said_to_be_one(run, without_curves):
    (run / "stress").mkdir()
    other = {**policy_of(run, 3000), "sha256": "0" * 64}
    (run / "stress" / "stress.json").write_text(stress_of(other).to_json())
    assert "step 3,000, deterministic, not of this run" in Page(write_report(run)).text


def test_a_damaged_stress_leaves_the_page_as_it_was(run, without_curves):
    path = write_report(run)
    before = path.read_bytes()
    (run / "stress").mkdir()
    assert "sensitive" not in Page(write_report(run)).text, "no row is finished yet"
    (run / "stress" / "stress.json").write_text('{"rows": 0}')
    with pytest.raises(DatasetError, match="not the result of a stress"):
        write_report(run)
    assert path.read_bytes() == before
