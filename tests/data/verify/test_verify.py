"""Every planted fault is found in its file, and nothing else is."""

import json
import shutil

import h5py
import numpy as np
import pytest
import yaml

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.schema import FORMAT_VERSION
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.data.verify.dataset_check import verify_dataset
from ofrl_robot.data.verify.episode_check import (
    DAMAGE,
    DENIED,
    INCONSISTENT,
    MIXED_SPECS,
    OTHER_FORMAT,
    UNREADABLE,
    WARNING,
    check_episode,
)
from ofrl_robot.data.verify.thresholds import DEFAULT_FILE, QualityLimits, load_limits
from ofrl_robot.errors import ConfigError, DatasetError

GROUP = "data/demo_0"
STEPS = 40
PERIOD = 200_000_000  # ns, as in conftest
MS = 1_000_000


def edit(**changes):
    """Fault: rewrite datasets (``/`` written as ``__``), each by a function of its values."""

    def fault(path):
        with h5py.File(str(path), "r+") as file:
            for name, change in changes.items():
                name = f"{GROUP}/{name.replace('__', '/')}"
                values = change(file[name][:].copy())
                if (
                    values is None
                    or values.shape != file[name].shape
                    or (values.dtype != file[name].dtype)
                ):
                    del file[name]
                    if values is not None:
                        file[name] = values
                else:
                    file[name][:] = values

    return fault


def attribute(**values):
    def fault(path):
        with h5py.File(str(path), "r+") as file:
            file[GROUP].attrs.update(values)

    return fault


def put(where, value):
    def change(values):
        values[where] = value
        return values

    return change


def add(where, value):
    def change(values):
        values[where] += value
        return values

    return change


def gone(values):
    return None


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def foreign(path):
    with h5py.File(str(path), "w") as file:
        file["weights/layer_1"] = np.zeros(3)


def lose_a_frame(path):
    """As a power cut can: the frame's chunk was never written."""
    with h5py.File(str(path), "r+") as file:
        frames = file[f"{GROUP}/obs/image"][:]
        del file[f"{GROUP}/obs/image"]
        data = file[GROUP].create_dataset(
            "obs/image", frames.shape, np.uint8, chunks=(1,) + frames.shape[1:]
        )
        for k in range(len(frames) - 1):
            data[k] = frames[k]


def virtual_state(path):
    with h5py.File(str(path), "r+") as file:
        file.move(f"{GROUP}/obs/state", "other")
        layout = h5py.VirtualLayout((STEPS + 1, 10), np.float64)
        layout[:] = h5py.VirtualSource(".", "/other", (STEPS + 1, 10))
        file[GROUP].create_virtual_dataset("obs/state", layout)


def slow(values):
    return np.arange(1, len(values) + 1) * (PERIOD * 5 // 4)


SOME = slice(10, 18)  # 8 of 40 steps
FAULTS = {
    # damage
    "truncated": (truncate, DAMAGE, UNREADABLE, "truncated"),
    "no hdf5": (lambda path: path.write_bytes(b"x" * 5000), DAMAGE, UNREADABLE, "not an HDF5"),
    "empty file": (lambda path: path.write_bytes(b""), DAMAGE, UNREADABLE, "not an HDF5"),
    "foreign": (foreign, DAMAGE, UNREADABLE, GROUP),
    "newer": (attribute(format_version=99), DAMAGE, OTHER_FORMAT, "99"),
    "older": (attribute(format_version=1), DAMAGE, OTHER_FORMAT, "episode format 1, this version"),
    "label 7": (attribute(success=7), DAMAGE, UNREADABLE, "success is 7"),
    "rate 0": (attribute(control_rate_hz=0.0), DAMAGE, UNREADABLE, "control_rate_hz is 0.0"),
    "rate -5": (attribute(control_rate_hz=-5.0), DAMAGE, UNREADABLE, "control_rate_hz is -5.0"),
    "rate NaN": (attribute(control_rate_hz=np.nan), DAMAGE, UNREADABLE, "control_rate_hz is nan"),
    "rate inf": (attribute(control_rate_hz=np.inf), DAMAGE, UNREADABLE, "control_rate_hz is inf"),
    "raw bytes": (attribute(operator=np.bytes_(b"\xff\xfe")), DAMAGE, UNREADABLE, "operator is b"),
    "no actions": (edit(actions=gone), DAMAGE, UNREADABLE, "no dataset actions"),
    "short rewards": (edit(rewards=lambda v: v[1:]), DAMAGE, UNREADABLE, "rewards is (39,)"),
    "short stamps": (
        edit(timestamps__state=lambda v: v[1:]), DAMAGE, UNREADABLE, "timestamps/state is (40,)"
    ),
    "NaN action": (edit(actions=put((3, 0), np.nan)), DAMAGE, INCONSISTENT, "finite"),
    "infinite reward": (edit(rewards=put(3, np.inf)), DAMAGE, INCONSISTENT, "finite"),
    "NaN state": (edit(obs__state=put((7, 2), np.nan)), DAMAGE, INCONSISTENT, "step 7"),
    "big action": (edit(actions=put((3, 0), 1.5)), DAMAGE, INCONSISTENT, "1.5, beyond"),
    "float64 actions": (
        edit(actions=lambda v: v.astype(np.float64)), DAMAGE, INCONSISTENT, "actions is float64"
    ),
    "float stamps": (
        edit(timestamps__obs=lambda v: v.astype(float)), DAMAGE, INCONSISTENT, "obs is float64"
    ),
    "dones": (edit(dones=put(5, True)), DAMAGE, INCONSISTENT, "dones is not"),
    "ends early": (
        edit(dones=put(5, True), terminals=put(5, True)), DAMAGE, INCONSISTENT, "step 5 of 40"
    ),
    "never ends": (
        edit(dones=put(-1, False), timeouts=put(-1, False)), DAMAGE, INCONSISTENT, "last step"
    ),
    "both ends": (edit(terminals=put(-1, True)), DAMAGE, INCONSISTENT, "both terminal"),
    "lost frame": (lose_a_frame, DAMAGE, UNREADABLE, "rows of obs/image are missing"),
    "virtual": (virtual_state, DAMAGE, UNREADABLE, "obs/state is a virtual dataset"),
    "short originals": (
        lambda path: h5py.File(str(path), "r+")[GROUP].create_dataset(
            "obs_jpeg/image", data=np.zeros(3, np.uint8)
        ).file.close(),
        DAMAGE, INCONSISTENT, "obs_jpeg/image is (3,), (41,) expected",
    ),
    "short next": (
        edit(next_obs__state=lambda v: v[1:]), DAMAGE, INCONSISTENT, "next_obs/state is (39, 10)"
    ),
    # warnings
    "no next": (edit(next_obs__state=gone), WARNING, "incomplete", "next_obs/state"),
    "no dones": (edit(dones=gone), WARNING, "incomplete", "has no dones"),
    "no label source": (attribute(label_source=""), WARNING, "label", "but has no label source"),
    "no reward": (edit(rewards=put(-1, 0.0)), WARNING, "label", "no reward is positive"),
    "failure with reward": (attribute(success=0), WARNING, "label", "last reward is 1"),
    "slow": (
        edit(timestamps__obs=slow, timestamps__image=slow, timestamps__state=slow,
             timestamps__action=lambda v: slow(v), timestamps__applied=lambda v: slow(v)),
        WARNING, "rate", "4 Hz achieved, 5 Hz nominal: 20% off (limit 10%)",
    ),
    "gap": (
        edit(timestamps__obs=add(slice(20, None), 2 * PERIOD),
             timestamps__image=add(slice(20, None), 2 * PERIOD),
             timestamps__state=add(slice(20, None), 2 * PERIOD),
             timestamps__action=add(slice(20, None), 2 * PERIOD),
             timestamps__applied=add(slice(20, None), 2 * PERIOD)),
        WARNING, "gaps", "2.5% of the ticks",
    ),
    "clock back": (
        edit(timestamps__obs=add(slice(20, None), -10 * PERIOD),
             timestamps__state=add(slice(20, None), -10 * PERIOD),
             timestamps__action=add(slice(20, None), -10 * PERIOD),
             timestamps__applied=add(slice(20, None), -10 * PERIOD),
             timestamps__image=add(slice(20, None), -10 * PERIOD)),
        WARNING, "clock", "jumped back",
    ),
    "action stamps": (
        edit(timestamps__action=add(slice(None), 1)), WARNING, "clock", "timestamps/action"
    ),
    "late": (
        edit(timestamps__applied=add(SOME, PERIOD * 3 // 2)), WARNING, "late actions", "20.0%"
    ),
    "held": (edit(source=put(SOME, 0)), WARNING, "held", "20.0% of the ticks"),
    "skew": (
        edit(timestamps__state=add(9, -250 * MS)), WARNING, "skew", "up to 250 ms apart (limit 200)"
    ),
    "old frame": (
        edit(timestamps__image=add(9, -199 * MS), timestamps__obs=add(9, 50 * MS),
             timestamps__action=add(9, 50 * MS)),
        WARNING, "frame age", "249 ms",
    ),
    "frame of the future": (
        edit(timestamps__image=add(9, 60 * MS)), WARNING, "clock", "60 ms later than its tick"
    ),
    "covered camera": (edit(obs__image=put(SOME, 3)), WARNING, "blank frames", "19.5%"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory, make):
    path, _, _ = make.episode(tmp_path_factory.mktemp("good"), STEPS, seed=1)
    return path


def findings_of(path, limits=None):
    return [
        (f.level, f.kind, f.text) for f in check_episode(path, limits or QualityLimits()).findings
    ]


def test_a_clean_episode_has_no_findings(good):
    check = check_episode(good, QualityLimits())
    assert check.findings == [] and check.steps == STEPS
    assert check.timing.rate_hz == pytest.approx(5.0) and check.timing.held == 0


@pytest.mark.parametrize(
    "fault, level, kind, words", [pytest.param(*case, id=name) for name, case in FAULTS.items()]
)
def test_a_fault_is_found_and_nothing_else_is(good, tmp_path, fault, level, kind, words):
    path = tmp_path / good.name
    shutil.copy(str(good), str(path))
    fault(path)
    found = findings_of(path)
    assert [f[:2] for f in found] == [(level, kind)], found
    assert words in found[0][2]


def freeze(path, stamps):
    """The camera shows one frame for 8 ticks more, with or without new stamps."""
    edit(obs__image=lambda v: np.concatenate([v[:10], v[10:11].repeat(9, 0), v[19:]]))(path)
    if stamps:
        edit(timestamps__image=lambda v: np.concatenate([v[:10], [v[10]] * 9, v[19:]]))(path)


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("stamps", [True, False])
def test_a_frozen_camera_is_told_from_a_simulated_arm_that_waits(tmp_path, make, simulated, stamps):
    meta = make.meta(seed=7 if simulated else -1)
    path, _, _ = make.episode(tmp_path, STEPS, meta=meta)
    freeze(path, stamps)
    check = check_episode(path, QualityLimits(max_frame_age_ms=np.inf, max_skew_ms=np.inf))
    found = stamps or not simulated  # new stamps and the same pixels: rendered, and nothing moved
    assert [f.kind for f in check.findings] == ["frozen camera"] * found
    assert check.timing.cameras["image"].longest_run == (8 if found else 0)


def test_rewards_that_were_set_on_purpose_may_differ_from_the_label(good, tmp_path):
    path = tmp_path / good.name
    shutil.copy(str(good), str(path))
    edit(rewards=lambda v: v * 0)(path)
    attribute(reward_source="zero")(path)
    assert findings_of(path) == []


# -- the whole dataset -----------------------------------------------------------------------


def spoiled(tmp_path, make):
    """A dataset of eleven files with one fault each or none; {file: kinds} as expected."""
    folder = tmp_path / "data"
    for seed in range(9):
        make.episode(folder, 6, seed=seed)
    paths = [folder / f"episode_{k:06d}.h5" for k in range(11)]
    expected = {path.name: [] for path in paths}
    make.episode(folder, 6, seed=20, size=8)  # number 9
    shutil.copy(str(paths[3]), str(paths[10]))
    truncate(paths[1])
    foreign(paths[2])
    attribute(format_version=FORMAT_VERSION + 1)(paths[4])
    edit(source=put(0, 0))(paths[5])
    edit(obs__state=put((1, 1), np.nan))(paths[6])
    expected.update({
        paths[1].name: [UNREADABLE], paths[2].name: [UNREADABLE], paths[4].name: [OTHER_FORMAT],
        paths[5].name: ["held"], paths[6].name: [INCONSISTENT], paths[9].name: [MIXED_SPECS],
        paths[10].name: ["duplicate"],
    })  # fmt: skip
    return folder, expected


def kinds_of(verification):
    found = {check.file: [] for check in verification.episodes}
    for finding in verification.findings:
        found.setdefault(finding.file, []).append(finding.kind)
    return found


@pytest.mark.slow
def test_each_file_has_its_own_finding(tmp_path, make, state_of):
    folder, expected = spoiled(tmp_path, make)
    writer = EpisodeWriter(folder, make.meta())
    before = state_of(folder)
    progress = []
    limits = QualityLimits()
    verification = verify_dataset(folder, limits, 2, lambda *counts: progress.append(counts))
    assert kinds_of(verification) == dict(expected, **{"episode_000011.h5.partial": ["unfinished"]})
    assert progress == [(k, 11) for k in range(1, 12)]
    mixed = next(f for f in verification.findings if f.kind == MIXED_SPECS)
    assert "observation_spec differs from episode_000000.h5 in cameras" in mixed.text
    assert state_of(folder) == before
    lines = "\n".join(verification.lines())
    assert "damage in 5 files, 3 warnings" in lines and "rate (Hz)" in lines
    assert all(finding.text in lines for finding in verification.findings)
    writer.discard()


@pytest.mark.slow
def test_the_command_line(tmp_path, make, capsys):
    make.episode(tmp_path / "clean", STEPS, seed=1)
    warned, _, _ = make.episode(tmp_path / "warned", STEPS, seed=1)
    edit(source=put(SOME, 0))(warned)
    damaged, _, _ = make.episode(tmp_path / "damaged", STEPS, seed=1)
    truncate(damaged)
    report = tmp_path / "report.json"
    verb = ["data", "verify", "--workers", "1"]
    assert main([*verb, str(tmp_path / "clean"), "--strict", "--json", str(report)]) == 0
    data = json.loads(report.read_text())
    assert data["findings"] == [] and data["episodes"][0]["timing"]["held"] == 0
    assert "no damage, no warnings" in capsys.readouterr().out
    assert main([*verb, str(tmp_path / "warned")]) == 0
    assert "no damage, 1 warning\n" in capsys.readouterr().out
    assert main([*verb, str(tmp_path / "warned"), "--strict"]) == 2
    assert "no damage, 1 warning; see above" in capsys.readouterr().err
    limits = tmp_path / "limits.yaml"
    limits.write_text("max_held_fraction: 0.5\n")
    assert main([*verb, str(tmp_path / "warned"), "--strict", "--limits", str(limits)]) == 0
    assert main([*verb, str(tmp_path / "damaged")]) == 2
    captured = capsys.readouterr()
    assert f"damage (unreadable) {damaged.name}: truncated" in captured.out
    assert "damage in 1 file, no warnings" in captured.err


@pytest.mark.parametrize(
    "words, message",
    [
        (["absent"], "no such dataset folder"),
        (["."], "no episode_*.h5 in it"),
        ([".", "--workers", "-1"], "workers -1 is below 0"),
        ([".", "--limits", "absent.yaml"], "absent.yaml: does not exist"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "verify", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.slow
def test_many_findings_of_one_kind_are_counted_in_the_text(tmp_path, make):
    for seed in range(8):
        path, _, _ = make.episode(tmp_path, 6, seed=seed)
        edit(source=put(0, 0))(path)
    verification = verify_dataset(tmp_path, QualityLimits())
    text = "\n".join(verification.lines())
    assert text.count("of the ticks were not answered") == 5 and "and 3 more" in text
    assert len(verification.findings) == 8


# -- repair ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_repair_sets_damaged_files_aside_and_loses_nothing(tmp_path, make, state_of, capsys):
    folder, expected = spoiled(tmp_path, make)
    before = dict(state_of(folder))
    verb = ["data", "verify", str(folder), "--workers", "1", "--repair"]
    assert main(verb) == 2  # what is good but does not fit stays, and is the user's to decide
    text = capsys.readouterr().out
    moved = [name for name, kinds in expected.items() if set(kinds) & {UNREADABLE, INCONSISTENT}]
    assert len(moved) == 3
    after = dict(state_of(folder))
    for name, content in before.items():
        assert after[("damaged/" if name in moved else "") + name] == content
    assert len(after) == len(before)
    assert all(f"{name}: damaged (" in text for name in moved)
    assert "damage in 2 files, 2 warnings" in text

    for name, kinds in expected.items():
        if kinds in ([OTHER_FORMAT], [MIXED_SPECS]):
            (folder / name).rename(tmp_path / name)
    again, _, _ = make.episode(folder, 6, seed=50)
    shutil.copy(str(again), str(folder / moved[0]))
    truncate(folder / moved[0])  # a name that was set aside before
    assert main(verb) == 0
    assert (folder / "damaged" / (f"{moved[0]}.1")).exists()
    assert (folder / "damaged" / moved[0]).read_bytes() == before[moved[0]]
    assert len(open_dataset(folder).paths) == 7


@pytest.mark.slow
def test_repair_recovers_what_a_dead_recorder_left(tmp_path, make, capsys):
    path, _, _ = make.episode(tmp_path, 6, seed=1)
    writer = EpisodeWriter(tmp_path, make.meta())
    make.record(writer, *make.ticks(5))
    writer._commit()
    content = writer._partial.read_bytes()
    writer.discard()
    writer._partial.write_bytes(content)
    (tmp_path / "episode_000005.h5.partial").write_bytes(b"rubbish")
    assert main(["data", "verify", str(tmp_path), "--workers", "1"]) == 0
    assert "2 warnings" in capsys.readouterr().out
    assert main(["data", "verify", str(tmp_path), "--workers", "1", "--repair"]) == 0
    text = capsys.readouterr().out
    assert "recovered, 5 steps" in text and "lost (" in text and "no damage" in text
    assert len(open_dataset(tmp_path).paths) == 2
    assert [p.name for p in (tmp_path / "lost").iterdir()] != []


@pytest.mark.slow
@pytest.mark.parametrize("partial", [True, False])
def test_repair_is_refused_while_a_recorder_is_at_work(tmp_path, make, state_of, capsys, partial):
    path, _, _ = make.episode(tmp_path, 6)
    truncate(path)
    if partial:
        (tmp_path / "episode_000005.h5.partial").write_bytes(b"rubbish")
    with one_writer(tmp_path):
        before = state_of(tmp_path)
        assert main(["data", "verify", str(tmp_path), "--workers", "1", "--repair"]) == 2
        assert state_of(tmp_path) == before
    assert "another recorder is at work" in capsys.readouterr().err


# -- hostile files ---------------------------------------------------------------------------


@pytest.mark.slow
def test_flipped_bytes_never_hang_or_end_the_verifier(tmp_path, make, state_of, monkeypatch):
    """Of 1500 such files 2 crashed libhdf5 and 2 made it hang; the rest is checked all the same."""
    monkeypatch.setattr("ofrl_robot.data.verify.dataset_check._SECONDS", 20.0)
    rng = np.random.default_rng(0)
    for seed in range(32):
        make.episode(tmp_path, 5, seed=seed)
    paths = sorted(tmp_path.glob("*.h5"))
    for path in paths[1:-1]:
        data = np.frombuffer(path.read_bytes(), np.uint8).copy()
        where = rng.integers(8, len(data), rng.choice([1, 2, 5, 20, 100]))  # not the signature
        data[where] ^= rng.integers(1, 256, len(where), dtype=np.uint8)
        path.write_bytes(data.tobytes())
    before = state_of(tmp_path)
    verification = verify_dataset(tmp_path, QualityLimits(), 2)
    assert [check.file for check in verification.episodes] == [path.name for path in paths]
    found = kinds_of(verification)
    assert found[paths[0].name] == found[paths[-1].name] == []
    assert sum(check.damaged for check in verification.episodes) >= 5
    assert state_of(tmp_path) == before


# -- limits ----------------------------------------------------------------------------------


def test_the_limits_file_holds_the_built_in_values_and_says_what_they_are():
    assert yaml.safe_load(DEFAULT_FILE.read_text()) == vars(QualityLimits())
    assert load_limits() == (QualityLimits(), DEFAULT_FILE)
    assert all("#" in line for line in DEFAULT_FILE.read_text().splitlines())


@pytest.mark.parametrize(
    "text, words",
    [
        ("max_skew: 3", "unknown limit 'max_skew'.*max_skew_ms"),
        ("max_skew_ms: far", "max_skew_ms is 'far'"),
        ("max_skew_ms: -1", "max_skew_ms is -1"),
        ("max_skew_ms: .nan", "max_skew_ms is nan"),
        ("max_skew_ms: true", "max_skew_ms is True"),
        ("- 3", "not a list of"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(tmp_path, text, words):
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_limits(path)


def test_limits_left_out_keep_their_value(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text("max_skew_ms: .inf\n")
    assert load_limits(path)[0] == QualityLimits(max_skew_ms=np.inf)
    path.write_text("")
    assert load_limits(path)[0] == QualityLimits()


def test_an_unreadable_file_is_not_called_damaged(good, tmp_path, monkeypatch):
    monkeypatch.setattr("ofrl_robot.data.verify.episode_check.os.access", lambda path, mode: False)
    assert [f[:2] for f in findings_of(good)] == [(DAMAGE, DENIED)]


def test_verify_raises_for_what_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="no such dataset"):
        verify_dataset(tmp_path / "absent", QualityLimits())
