"""The command line: exit codes, one-line messages, help, and the whole path in miniature."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ofrl_robot import __version__
from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.policy.checkpoint import resolve_checkpoint

TASK = "Widow250SingleObjGrasp-v0"


@pytest.fixture
def ofrl(capsys):
    """Function (words) -> (exit code, stdout, stderr); a traceback fails the test."""

    def call(*words):
        try:
            code = main([str(w) for w in words])
        except SystemExit as end:  # tyro's own answers
            code = end.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "DATA", "--algo", "sac"], "algorithm 'sac' is unknown; use one of"),
        (["train", "DATA"], "no such dataset folder; check the path"),
        (["train", "DATA", "--discount", "3"], "discount 3.0 is not in (0, 1)"),
        (["train", "DATA", "--batch-size", "0"], "batch_size 0 is below 1"),
        (["train", "DATA", "--shift", "-1"], "shift -1 is negative"),
        (["train", "DATA", "--actor-lr", "-1"], "actor_lr -1.0 is not above 0"),
        (["train", "DATA", "--critic-lr", "nan"], "critic_lr nan is not finite"),
        (["train", "DATA", "--latent", "-1"], "latent -1 is not in 0 to"),
        (["train", "DATA", "--threads", "-2"], "threads -2 is below 0"),
        (["collect", "--task", "Fly-v0", "--out", "OUT"], "simulated task 'Fly-v0' is unknown"),
        (["collect", "--task", TASK, "--out", "OUT", "--episodes", "0"], "episodes 0 is below 1"),
        (["collect", "--task", TASK, "--out", "OUT", "--noise", "-1"], "noise -1.0 is negative"),
        (["collect", "--task", TASK, "--out", "OUT", "--noise", "nan"], "noise nan is negative"),
        (["collect", "--task", TASK, "--out", "OUT", "--image-size", "0"], "image_size 0"),
        (["collect", "--task", TASK, "--out", "FILE"], "cannot be written (File exists)"),
        (["collect", "--task", TASK, "--out", "OUT", "--seed", "-1"], "seed -1 is below 0"),
        (["diagnose", "OUT"], "no config.json, so not a run folder"),
        (["evaluate", "OUT", "--out", "TRIALS"], "no such run folder or checkpoint file"),
        (["evaluate", "FILE", "--out", "TRIALS"], "not a safetensors file"),
        (["evaluate", "FILE", "--out", "TRIALS", "--trials", "0"], "trials 0 is below 1"),
        (["report", "OUT"], "not a run folder"),
        (["data", "info", "OUT"], "no such dataset folder"),
        (["data", "convert", "roboverse", "OUT", "TRIALS", "--task", TASK], "check the path"),
        (["train", "DATA", "--seed", "-1"], "seed -1 is below 0"),
        (["train", "DATA", "--config"], "--config has no file; give a YAML file"),
        (["train", "DATA", "--config", "FILE", "--config", "FILE"], "--config is given twice"),
        (["train"], "no dataset to train on; give its folder"),
        (["train", "DATA", "--prior", "DATA"], "prior and task data are the same folder"),
        (["train", "DATA", "--prior-fraction", "0.5"], "does nothing without prior data"),
        (["train", "DATA", "--prior-fraction", "2", "--prior", "OUT"], "is not in (0, 1)"),
        (["train", "DATA", "--prior", "OUT"], "no such dataset folder"),
        (["train", "DATA", "--dr3-weight", "1"], "dr3_weight does nothing without --dr3-feat"),
        (["train", "DATA", "--resume", "--out", "OUT"], "no such run to resume"),
        (["train", "--resume", "OUT"], "no such run to resume"),
        (["train", "DATA", "--name", "../x"], "is not the name of a folder"),
        (["train", "DATA", "--steps", "2000"], "the warm start (2000 steps) fills the whole run"),
        (["train", "DATA", "--config", "OUT"], "OUT: does not exist"),
        (["train", "DATA", "--config=OUT"], "OUT: does not exist"),
        (["collect", "--task", TASK, "--out", "OUT", "--seed", 2**64], "seed 18446744073709551616"),
        (
            ["collect", "--task", TASK, "--out", "OUT", "--seed", 2**32 - 99],
            "use 4294967196 or less",
        ),
        (
            ["collect", "--task", TASK, "--out", "OUT", "--operator", "\udcff"],
            "operator '\\udcff' is",
        ),
        (
            ["collect", "--task", TASK, "--out", "OUT", "--operator", "a\x1b[2J"],
            "is not plain text",
        ),
        (["evaluate", "OUT", "--out", "TRIALS", "--seed", 2**32], "seed 4294967296 of 50"),
        (["stress", "OUT"], "no such run folder or checkpoint file"),
        (["stress", "FILE"], "not a safetensors file"),
        (["stress", "OUT", "--trials", "0"], "trials 0 is below 1"),
        (["stress", "OUT", "--workers", "-1"], "workers -1 is below 0"),
        (["stress", "OUT", "--realism", "wild"], "realism 'wild' is unknown"),
        (["stress", "OUT", "--disturbances", "exposure=3"], "exposure is 3; use 0..0.5"),
        (["stress", "OUT", "--sim-backend", "roboverse"], "has no looks to disturb"),
        (["collect", "--task", TASK, "--out", "LONG"], "File name too long"),
        (["evaluate", "OUT", "--out", "LONG"], "File name too long"),
        (["data", "info", "LONG"], "File name too long"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(ofrl, tmp_path, words, message):
    (tmp_path / "FILE").write_text("not what you think")
    places = {name: tmp_path / name for name in ("DATA", "OUT", "TRIALS", "FILE")}
    places["LONG"] = tmp_path / ("x" * 300)
    places["--config=OUT"] = f"--config={tmp_path / 'OUT'}"
    code, _, err = ofrl(*[places.get(word, word) for word in words])
    assert code == 2
    assert err.startswith("ofrl: ") and err.count("\n") == 1 and message in err
    assert [p.name for p in tmp_path.iterdir()] == ["FILE"], "something was left behind"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["train", "data", "--colour", "red"],
        ["train", "data", "--algo", "bc", "--discount", "0.9"],  # a setting of cql
        ["train", "data", "--steps", "many"],
        ["train", "data", "--encoder", "resnet99"],
        ["data", "convert", "nope", "file", "out"],
        ["collect", "--task", TASK],
    ],
)
def test_words_that_are_no_command_give_exit_code_2(ofrl, words):
    code, _, err = ofrl(*words)
    assert code == 2 and err.strip()


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ([], ["Record scripted episodes", "--version", "--tyro-print-completion bash"]),
        (["collect"], ["--episodes", "default: 100", "--noise", "default: 0.1"]),
        (["train"], ["--steps", "[8000]", "--prior", "--resume", "--observe", "--help-all"]),
        (["train", "--help-all"], ["--discount", "default: 0.99", "--steps", "--hidden"]),
        (["train", "--algo", "bc", "--help-all"], ["--actor-lr", "--steps", "--wandb"]),
        (["train", "--algo", "brac", "--help-all"], ["--divergence-form", "--beta"]),
        (["sweep"], ["--vary", "--workers", "--ray", "--discount"]),
        (["diagnose"], ["Run folder written by"]),
        (["evaluate"], ["--trials", "default: 50", "--seed", "default: 1000000"]),
        (["stress"], ["--disturbances", "--trials", "default: 50", "--workers", "--realism"]),
        (["report"], ["--trials", "--out"]),
        (["data"], ["info", "verify", "view", "label", "split", "merge", "convert", "export"]),
        (["data", "info"], ["Dataset folder."]),
        (["data", "verify"], ["--repair", "--limits"]),
        (["data", "convert"], ["roboverse", "robomimic", "minari", "d4rl", "bridge", "rosbag"]),
        (["data", "convert", "roboverse"], ["--task", "--zero-rewards", "--num-traj"]),
        (["sim"], ["replay"]),
        (["sim", "replay"], ["--task", "--report"]),
        (["info"], ["bug report"]),
    ],
)
def test_help_of_every_verb(ofrl, words, needed):
    code, out, _ = ofrl(*words, "--help")
    assert code == 0
    flat = " ".join(out.replace("│", " ").split())
    for text in needed:
        assert text in flat
    if "bc" in words:
        assert "--discount" not in flat


def test_help_lists_the_verbs_in_the_order_of_the_path_on_one_line_each(ofrl):
    _, out, _ = ofrl("--help")
    rows = [line.strip("│ ").split() for line in out.splitlines() if "•" in line]
    assert [row[1] for row in rows] == [
        "collect", "data", "train", "diagnose", "report", "evaluate", "stress", "sweep", "launch",
        "rehearse", "sim", "info",
    ]  # fmt: skip
    assert all(row[-1].endswith(".") for row in rows)


def test_version(ofrl):
    code, out, _ = ofrl("--version")
    assert code == 0 and out == f"ofrl_robot {__version__}\n"


@pytest.mark.parametrize(
    ("users", "spins"),
    [({}, "10000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None), ({"GOMP_SPINCOUNT": "5"}, "5")],
    ids=["unset", "policy", "count"],
)
def test_waiting_threads_give_their_core_away_unless_the_user_says_otherwise(
    ofrl, monkeypatch, users, spins
):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    ofrl("--version")
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completion_knows_the_verbs(ofrl, shell):
    code, out, _ = ofrl("--tyro-print-completion", shell)
    assert code == 0
    assert all(word in out for word in ("ofrl", "collect", "diagnose", "replay", "--episodes"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: true", "steps is True, which cannot be used (Missing value for argument"),
        ("steps: many", "steps is 'many', which cannot be used"),
        ("steps:", "steps is None, which cannot be used"),
        ("steps: {a: 1}", "steps is {'a': 1}; give a number"),
        ("hidden: [8, [8]]", "hidden is [8, [8]]; give a number"),
        ("hidden: [8, --resume]", "hidden has the entry '--resume'"),
        ("1: 2", "1 is not a setting (it is set to 2)"),
        ("help: true", "'help' is not a setting (it is set to True)"),
        ("a b: 1", "'a b' is not a setting"),
        ("stepz: 9", "stepz is 9, which cannot be used (Unrecognized options"),
        ("clip_targets: 5", "clip_targets is 5, which cannot be used"),
        ("encoder: cogs", "encoder is 'cogs', which cannot be used (invalid choice"),
        ("discount: 3", "discount is 3, which cannot be used (discount 3.0 is not in (0, 1))"),
        ("algo: sac", "algo is 'sac', which cannot be used"),
        ("- a", "is not a list of `name: value` lines"),
        ("steps: &a [*a]", "uses a YAML alias"),
        ("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]", "uses a YAML alias"),
        ("[" * 20000, "is nested more than 50 levels deep"),
        ("x: " + "y" * (2 << 20), "bytes, at most"),
    ],
    ids=lambda text: text[:20],
)
def test_a_setting_of_a_file_that_cannot_be_used_is_named_with_its_file(
    ofrl, tmp_path, text, message
):
    settings = tmp_path / "settings.yaml"
    settings.write_text(text)
    code, out, err = ofrl("train", tmp_path / "none", "--config", settings)
    assert (code, out) == (2, "")
    assert err.startswith(f"ofrl: {settings}: ") and message in err and err.count("\n") == 1


def test_a_fifo_is_refused_as_a_settings_file(ofrl, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    code, _, err = ofrl("train", "data", "--config", tmp_path / "fifo")
    assert code == 2 and "is not a regular file" in err


def test_a_typed_flag_that_is_wrong_is_not_blamed_on_the_file(ofrl, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("discount: 0.9\nsteps: 5\n")
    for words in (["--discount", 3], ["--stepz", 4]):
        code, _, err = ofrl("train", "data", "--config", settings, *words)
        assert code == 2 and str(settings) not in err and str(words[0]).strip("-") in err


@pytest.mark.slow
def test_flags_win_over_the_config_file_and_its_unknown_names_are_refused(
    ofrl, make_dataset, tmp_path
):
    data, settings = make_dataset(), tmp_path / "c.yaml"
    settings.write_text(
        "algo: cql\nsteps: 9\nbatch_size: 8\nhidden: [8, 8]\nactor_lr: 1e-3\nclip_targets: false\n"
        "warm_start_steps: 0\nencoder: cog\nprecision: fp32\nthreads: 1\n"
    )
    code, _, err = ofrl(
        "train", data, "--config", settings, "--steps", 2, "--out", tmp_path / "runs"
    )
    assert code == 0, err
    stored = json.loads((tmp_path / "runs" / "data-cql" / "config.json").read_text())
    assert stored["train"]["steps"] == 2 and stored["train"]["batch_size"] == 8
    assert stored["nets"]["hidden"] == [8, 8] and stored["nets"]["encoder"] == "cog"
    assert (
        stored["algo_config"]["actor_lr"] == 1e-3 and stored["algo_config"]["clip_targets"] is False
    )

    settings.write_text("stepz: 9\n")
    code, _, err = ofrl("train", data, "--config", settings)
    assert code == 2 and "stepz" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["--algo", "bc", "--cache", "a cache", "--hidden", "7", "--observe", "off"],
        ["--cql-samples", "1", "2", "3", "--reward-bias", "-1", "--critic-lr", "1e-5"],
        ["--algo", "brac", "--behavior-head", "mixture", "--prior", "P", "--prior-fraction", "0.2"],
        ["--algo", "brac", "--behavior-path", "runs/x", "--no-value-penalty", "--wandb", "arms"],
        ["--regularization", "l1", "--target-entropy", "-2.5", "--split", "train"],
    ],
)
def test_the_config_that_a_run_writes_repeats_it(ofrl, tmp_path, monkeypatch, words):
    from ofrl_robot.training import loop, run_folder

    given = []

    def taken(config, folder, resume):
        given.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", taken)
    assert ofrl("train", "data", *words)[0] == 130
    folder = tmp_path / "run"
    run_folder.create_run(folder, given[0].to_dict())
    assert ofrl("train", "data", "--config", folder / "config.yaml", "--name", "again")[0] == 130
    assert given[1].to_dict() == given[0].to_dict(), "paths are absolute, so it can run anywhere"
    line = (folder / "config.yaml").read_text().splitlines()[0]
    assert line.startswith(f"# ofrl train {Path('data').resolve()} --config")


@pytest.mark.slow
def test_a_run_is_resumed_with_the_flags_it_began_with(ofrl, make_dataset, tmp_path):
    data, prior = make_dataset(), make_dataset("prior")
    words = ["train", data, "--prior", prior, "--algo", "bc", "--batch-size", 8,
             "--latent", 8, "--hidden", 16, "--threads", 1, "--checkpoint-every", 2,
             "--out", tmp_path / "runs"]  # fmt: skip
    code, out, err = ofrl(*words, "--steps", 2)
    assert code == 0 and "checkpoints: 1 of " in out, err
    code, out, err = ofrl(*words, "--steps", 2, "--resume")
    assert code == 0 and "finished: all 2 steps are done" in out and "verdict: " in out, err
    code, out, err = ofrl(*words, "--steps", 4, "--resume")
    assert code == 0 and "resumed after step 2" in out and "verdict: " in out, err
    code, _, err = ofrl(*words, "--steps", 4, "--resume", "--seed", 1)
    assert code == 2 and err.count("\n") == 1 and "seed 0 != 1" in err


def test_ctrl_c_is_exit_code_130_without_a_traceback(ofrl, monkeypatch, tmp_path):
    from ofrl_robot.workflow import choose_checkpoint as selection

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(selection, "select_checkpoint", interrupted)
    code, _, err = ofrl("diagnose", tmp_path)
    assert code == 130 and err.count("\n") == 1


@pytest.mark.slow
def test_collect_train_diagnose_evaluate_in_miniature(ofrl, tmp_path):
    data, runs, trials = tmp_path / "grasp", tmp_path / "runs", tmp_path / "trials"
    code, out, err = ofrl(
        "collect", "--task", TASK, "--out", data, "--episodes", 2, "--noise", 0.02,
        "--image-size", 24,
    )  # fmt: skip
    assert code == 0, err
    dataset = open_dataset(data)
    assert len(dataset.paths) == 2 and dataset.successes >= 1
    assert f"{dataset.successes}/2" in out

    words = ["train", data, "--out", runs, "--steps", 4, "--batch-size", 8, "--checkpoint-every",
             2, "--probe-size", 16, "--warm-start-steps", 1, "--latent", 8, "--hidden", 16,
             "--threads", 1]  # fmt: skip
    code, out, err = ofrl(*words)
    run = runs / "grasp-cql"
    assert code == 0 and "verdict: " in out and str(run) in out, err
    code, _, err = ofrl(*words)
    assert code == 2 and "exists already" in err  # never written over

    code, out, _ = ofrl("diagnose", run)
    chosen = resolve_checkpoint(run)
    assert code == 0 and f"deploy: step {int(chosen.stem.split('_')[1])}" in out

    code, out, err = ofrl("evaluate", run, "--trials", 2, "--out", trials)
    assert code == 0 and "/2 = " in out and str(chosen) in out, err
    metas = open_dataset(trials).metas
    assert [m.seed for m in metas] == [1000000, 1000001]
    assert {m.actor for m in metas} == {"policy"} and {m.policy["algo"] for m in metas} == {"cql"}
    code, _, err = ofrl("evaluate", run, "--trials", 2, "--out", trials)
    assert code == 2 and "holds episodes already" in err

    code, out, _ = ofrl("data", "info", data)
    assert code == 0 and out.strip()
