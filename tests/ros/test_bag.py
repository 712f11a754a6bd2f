"""Bags become the episodes that were recorded live, and episodes become bags."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import rosbag
import rosgraph
import rospy

from ofrl_robot.cli import main
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import GROUP, UNKNOWN, episode_paths
from ofrl_robot.errors import ConfigError, DatasetError, SpecMismatchError
from ofrl_ros import bag as bags
from ofrl_ros.description import RobotDescription
from tests.ros.waiting import wait_for

TASK = "Widow250SingleObjGrasp-v0"
TOPICS = ["spec", "tick", "camera/image/image_raw", "applied_action", "episode/saved"]


def arrays(path):
    """Every dataset of an episode file by name."""
    found = {}
    with h5py.File(str(path), "r") as file:
        file[GROUP].visititems(
            lambda name, item: found.update({name: item[:]} if hasattr(item, "shape") else {})
        )
    return found


def attributes(path, but=("created",)):
    with h5py.File(str(path), "r") as file:
        return {k: v for k, v in file[GROUP].attrs.items() if k not in but}


def assert_same_arrays(path, other):
    a, b = arrays(path), arrays(other)
    assert a.keys() == b.keys() and "obs/image" in a
    for name in a:
        assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two episodes with late, lost and repeated frames; both begin at the same stamp."""
    folder = tmp_path_factory.mktemp("bags") / "data"
    words = ["collect", "--task", TASK, "--episodes", "2", "--realism", "harsh",
             "--image-size", "16", "--operator", "ada", "--out", str(folder)]  # fmt: skip
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def exported(dataset):
    path = dataset.parent / "data.bag"
    assert bags.export_bag(dataset, path) == 2
    return path


def changed(source, out, change):
    """Copy a bag; ``change(topic, message)`` may change messages, and says which are kept."""
    with rosbag.Bag(str(source)) as old, rosbag.Bag(str(out), "w") as new:
        for topic, message, time in old.read_messages():
            if change(topic[len("/sim/") :], message):
                new.write(topic, message, time)
    return out


def rewrite(source, out, keep=lambda topic, number: True, **header):
    """Copy a bag; ``keep`` says which message, counted by topic, goes along."""
    seen = collections.Counter()
    with rosbag.Bag(str(source)) as old, rosbag.Bag(str(out), "w") as new:
        for topic, message, time, given in old.read_messages(return_connection_header=True):
            short = topic[len("/sim/") :]
            if keep(short, seen[short]):
                new.write(topic, message, time, connection_header={**given, **header})
            seen[short] += 1
    return out


def test_a_bag_recorded_beside_the_recorder_gives_its_episodes(node, master, tmp_path):
    """rosbag record and the recorder receive the same session.

    Realism mild: noise, late and lost frames.
    """
    live, file = tmp_path / "live", tmp_path / "session.bag"
    topics = [f"{node.namespace}/{topic}" for topic in TOPICS]
    words = ["rosbag", "record", "--bz2", "-O", str(file), *topics, "/rosout"]
    recording = subprocess.Popen(
        words, env=master, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        listed = rosgraph.Master("/tests")
        wait_for(
            lambda: set(topics) <= {topic for topic, _ in listed.getSystemState()[1]}, "rosbag"
        )
        node("robot_node.py", task=TASK, realism="mild", image_size=16)
        node("teleop_node.py", device="scripted", noise=0.1)
        recorder, _ = node("episode_node.py", actor="teleop", device="scripted", episodes=2,
                           out=live, operator="ada", seed=3)  # fmt: skip
        assert recorder.wait(240) == 0  # s: more than 60 to start three nodes at a load of 22
    finally:
        recording.send_signal(signal.SIGINT)
        recording.wait(20)
    wait_for(
        file.exists, "rosbag to close its file"
    )  # the process above ends before the one that writes
    assert main(["data", "convert", "rosbag", str(file), str(tmp_path / "bag")]) == 0
    pairs = list(zip(episode_paths(live), episode_paths(tmp_path / "bag")))
    assert len(pairs) == len(open_dataset(tmp_path / "bag").paths) == 2
    for recorded, converted in pairs:
        assert_same_arrays(recorded, converted)
        assert attributes(recorded) == attributes(converted)


@pytest.mark.parametrize("compression", ["none", "bz2"])
def test_a_dataset_comes_back_from_a_bag(dataset, tmp_path, compression):
    file, back = tmp_path / "data.bag", tmp_path / "back"
    words = ["data", "export", "rosbag", str(dataset), str(file), "--compression", compression]
    assert main(words) == 0
    assert main(["data", "convert", "rosbag", str(file), str(back)]) == 0
    for path, other in zip(episode_paths(dataset), episode_paths(back)):
        assert_same_arrays(path, other)
        assert attributes(path) == attributes(other)
    with rosbag.Bag(str(file)) as bag:
        info = bag.get_type_and_topic_info().topics
        assert {topic[len("/sim/") :] for topic in info} == set(TOPICS)
        frames = [m for _, m, _ in bag.read_messages("/sim/camera/image/image_raw")]
    assert len(frames) < info["/sim/tick"].message_count, "a frame goes out once"


def test_an_episode_ended_by_hand_ends_where_the_recorder_ended_it(exported, tmp_path):
    def by_hand(topic, message):
        if topic == "episode/saved":  # the ticks went on until the next reset
            note = json.loads(message.data)
            note["steps"] = 7
            note["attributes"].update(success=0, label_source="operator")
            message.data = json.dumps(note)
        return True

    changed(exported, tmp_path / "hand.bag", by_hand)
    assert bags.import_bag(tmp_path / "hand.bag", tmp_path / "back") == bags.ImportedBag(2, [])
    for path in episode_paths(tmp_path / "back"):
        episode = read_episode(path)
        assert len(episode) == 7 and episode.timeouts.tolist() == [False] * 6 + [True]
        assert (episode.meta.success, episode.meta.label_source) == (0, "operator")


def test_a_cropped_frame_is_not_cropped_again(dataset, tmp_path):
    crop = [0, 0, 8, 8]
    for path in episode_paths(dataset):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        with h5py.File(str(tmp_path / path.name), "r+") as file:
            spec = json.loads(file[GROUP].attrs["observation_spec"])
            spec["cameras"][0]["crop"] = crop
            file[GROUP].attrs["observation_spec"] = json.dumps(spec)
    bags.export_bag(tmp_path, tmp_path / "data.bag")
    bags.import_bag(tmp_path / "data.bag", tmp_path / "back")
    for path in episode_paths(tmp_path):
        assert_same_arrays(path, tmp_path / "back" / path.name)
    spec = open_dataset(tmp_path / "back").observation_spec
    assert spec.cameras[0].crop == tuple(crop)


def test_without_saved_messages_the_simulator_labels(dataset, exported, tmp_path):
    bag = rewrite(exported, tmp_path / "cut.bag", lambda topic, _: topic != "episode/saved")
    assert bags.import_bag(bag, tmp_path / "back") == bags.ImportedBag(2, [])
    for path in episode_paths(dataset):
        episode, other = read_episode(path), read_episode(tmp_path / "back" / path.name)
        assert (other.meta.success, other.meta.label_source) == (episode.meta.success, "simulator")
        assert (other.meta.seed, other.meta.actor) == (episode.meta.seed, "")
        assert_same_arrays(path, tmp_path / "back" / path.name)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (("tick", 4), "episode 1 of the bag: tick 4 or an image of it is missing"),
        (("camera/image/image_raw", 3), "or an image of it is missing"),
        (("applied_action", 4), "episode 1 of the bag: the action applied to tick 4 is missing"),
        (("tick", 0), "episode 1 of the bag: tick 0 or an image of it is missing"),
        (("tick", -1), "episode 2 of the bag: the bag ends before it does"),
        (("camera/image/image_raw", -1), "episode 2 of the bag: the bag ends before it does"),
        (("applied_action", -1), "episode 2 of the bag: the action applied to tick"),
    ],
)
def test_an_episode_with_a_hole_is_left_out(dataset, exported, tmp_path, lost, reason):
    topic, number = lost
    with rosbag.Bag(str(exported)) as bag:
        count = bag.get_message_count(f"/sim/{topic}")
    hole = (topic, number % count)
    file = rewrite(exported, tmp_path / "hole.bag", lambda *which: which != hole)
    made = bags.import_bag(file, tmp_path / "back")
    assert made.episodes == 1 and len(made.left_out) == 1 and reason in made.left_out[0]
    whole = episode_paths(dataset)[0 if number < 0 else 1]
    assert_same_arrays(whole, tmp_path / "back" / "episode_000000.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "hole.bag"]


@pytest.mark.parametrize("topic", ["camera/image/image_raw", "applied_action"])
def test_a_lost_message_is_not_taken_from_an_episode_of_the_same_stamps(dataset, tmp_path, topic):
    content = episode_paths(dataset)[0].read_bytes()
    for name in ("episode_000000.h5", "episode_000001.h5"):
        (tmp_path / name).write_bytes(content)
    bags.export_bag(tmp_path, tmp_path / "twice.bag")
    with rosbag.Bag(str(tmp_path / "twice.bag")) as bag:
        hole = topic, bag.get_message_count(f"/sim/{topic}") - 1
    file = rewrite(tmp_path / "twice.bag", tmp_path / "hole.bag", lambda *which: which != hole)
    assert bags.import_bag(file, tmp_path / "back").episodes == 1


def test_two_episodes_of_the_same_stamps_are_told_apart_by_their_number(dataset, tmp_path):
    """Ticks of two copies of an episode, joined to one that has every step once."""
    content = episode_paths(dataset)[0].read_bytes()
    for name in ("episode_000000.h5", "episode_000001.h5"):
        (tmp_path / name).write_bytes(content)
    bags.export_bag(tmp_path, tmp_path / "twice.bag")
    numbers = []

    def joined(topic, message):
        if topic != "tick":
            return topic != "episode/saved"
        values = dict(zip(message.name, message.position))
        numbers.append(values["episode"])
        return (values["step"] < 5) == (values["episode"] == numbers[0])

    file = changed(tmp_path / "twice.bag", tmp_path / "joined.bag", joined)
    with pytest.raises(DatasetError, match="no whole episode"):
        bags.import_bag(file, tmp_path / "back")
    assert len(set(numbers)) == 2, "an exported tick has the number of its episode"


def test_episodes_may_overlap_in_a_bag(dataset, exported, tmp_path):
    """rosbag keeps the order within a topic only: an action may follow the next tick 0."""
    seen, late = collections.Counter(), []
    second = 100_000_000_000  # ns: stamps of the second episode follow those of the first
    with rosbag.Bag(str(exported)) as old, rosbag.Bag(str(tmp_path / "late.bag"), "w") as new:
        last = read_episode(episode_paths(dataset)[0])
        for topic, message, time in old.read_messages():
            name = topic[len("/sim/") :]
            if name == "episode/saved":
                note = json.loads(message.data)
                note["first_stamp"] += second * seen[name]
                message.data = json.dumps(note)
            elif name != "spec" and seen["episode/saved"]:
                message.header.stamp += rospy.Duration(second // 10**9)
            seen[name] += 1
            if name == "applied_action" and seen[name] == len(last):
                late.append((topic, message))
                continue
            new.write(topic, message, time)
            if name == "tick" and seen["episode/saved"]:
                while late:
                    new.write(*late.pop(), time)
    assert bags.import_bag(tmp_path / "late.bag", tmp_path / "back") == bags.ImportedBag(2, [])
    for path in episode_paths(dataset):
        other = read_episode(tmp_path / "back" / path.name)
        assert np.array_equal(other.actions, read_episode(path).actions)
        assert attributes(path) == attributes(tmp_path / "back" / path.name)


def test_a_message_of_a_latched_topic_may_be_repeated(dataset, exported, tmp_path):
    """A subscriber that reconnects gets the last message again."""
    with rosbag.Bag(str(exported)) as old, rosbag.Bag(str(tmp_path / "again.bag"), "w") as new:
        for topic, message, time in old.read_messages():
            for _ in range(2):
                new.write(topic, message, time)
    made = bags.import_bag(tmp_path / "again.bag", tmp_path / "back")
    assert made == bags.ImportedBag(2, [])
    for path in episode_paths(dataset):
        assert_same_arrays(path, tmp_path / "back" / path.name)


def test_where_rewards_are_unknown_an_episode_without_a_label_has_none(exported, tmp_path):
    def without(topic, message):
        if topic == "spec":
            assert json.loads(message.data)["rewards_known"] is True
            message.data = json.dumps({**json.loads(message.data), "rewards_known": False})
        return topic != "episode/saved"

    bag = changed(exported, tmp_path / "arm.bag", without)
    assert bags.import_bag(bag, tmp_path / "back") == bags.ImportedBag(2, [])
    for path in episode_paths(tmp_path / "back"):
        meta = read_episode(path).meta
        assert (meta.success, meta.label_source) == (UNKNOWN, "")


def test_a_bag_names_the_frame_of_reference_of_the_dataset(dataset, exported):
    spec = open_dataset(dataset).observation_spec
    with rosbag.Bag(str(exported)) as bag:
        frames = {m.header.frame_id for _, m, _ in bag.read_messages("/sim/tick")}
        images = {m.header.frame_id for _, m, _ in bag.read_messages("/sim/camera/image/image_raw")}
        described = next(iter(bag.read_messages("/sim/spec")))[1]
    assert frames == {spec.state_frame} == {"world"}
    assert images == {spec.cameras[0].name}
    robot = RobotDescription.from_json(described.data)
    assert robot.instruction == robot.task == TASK and not robot.ground_truth


def test_an_episode_of_another_robot_is_refused(exported, tmp_path):
    def other(topic, message):
        if topic == "episode/saved":
            note = json.loads(message.data)
            spec = json.loads(note["attributes"]["observation_spec"])
            spec["state_frame"] = "base"
            note["attributes"]["observation_spec"] = json.dumps(spec)
            message.data = json.dumps(note)
        return True

    file = changed(exported, tmp_path / "other.bag", other)
    with pytest.raises(SpecMismatchError, match="state_frame: base != world"):
        bags.import_bag(file, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("camera/image/image_raw", "no topic /sim/camera/image/image_raw; an episode needs it"),
        ("applied_action", "no topic /sim/applied_action"),
        ("spec", "no topic /sim/spec"),
        ("tick", "no topic tick"),
    ],
)
def test_a_missing_topic_is_named(exported, tmp_path, without, words):
    file = rewrite(exported, tmp_path / "less.bag", lambda topic, _: topic != without)
    with pytest.raises(DatasetError, match=words):
        bags.import_bag(file, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_bag_that_was_cut_off_says_how_to_repair_it(exported, tmp_path):
    whole = exported.read_bytes()
    cut = tmp_path / "cut.bag"
    with rosbag.Bag(str(cut), "w", chunk_threshold=10_000) as bag, rosbag.Bag(str(exported)) as old:
        for topic, message, time in old.read_messages():
            bag.write(topic, message, time)
        bag.flush()
        unclosed = cut.read_bytes()
    cut.write_bytes(unclosed[: len(unclosed) * 9 // 10])
    with pytest.raises(DatasetError, match="rosbag reindex"):
        bags.import_bag(cut, tmp_path / "back")
    subprocess.run(["rosbag", "reindex", "-q", str(cut)], check=True)
    made = bags.import_bag(cut, tmp_path / "back")
    assert made.episodes == 1 and len(made.left_out) == 1
    for content in (b"", b"#ROSBAG V2.0\n", b"no bag", whole[:100]):
        (tmp_path / "junk.bag").write_bytes(content)
        with pytest.raises(DatasetError, match="junk.bag"):
            bags.import_bag(tmp_path / "junk.bag", tmp_path / "none")


def test_damage_inside_is_an_error_not_a_traceback(exported, tmp_path):
    content = bytearray(exported.read_bytes())
    file = tmp_path / "bad.bag"
    for where in np.random.default_rng(0).integers(len(content) // 100, len(content), 20):
        broken = content.copy()
        broken[where : where + 64] = b"\xff" * 64
        file.write_bytes(broken)
        try:
            bags.import_bag(file, tmp_path / f"back{where}")
        except (DatasetError, ConfigError, SpecMismatchError):
            assert not (tmp_path / f"back{where}").exists()


def test_no_code_comes_from_a_bag(exported, tmp_path):
    """The message definitions in a bag are not used."""
    evil = rewrite(exported, tmp_path / "evil.bag", message_definition="string x='''\nimport os\n")
    assert bags.import_bag(evil, tmp_path / "back").episodes == 2
    other = rewrite(exported, tmp_path / "other.bag", md5sum="0" * 32)
    with pytest.raises(DatasetError, match="expected"):
        bags.import_bag(other, tmp_path / "none")


def test_without_ros_it_is_one_line(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rosbag", None)
    for name in [name for name in sys.modules if name.startswith("ofrl_ros.bag")]:
        monkeypatch.delitem(sys.modules, name)
    for words in (["export", "rosbag", str(dataset), str(tmp_path / "x.bag")],
                  ["convert", "rosbag", "x.bag", str(tmp_path / "x")]):  # fmt: skip
        assert main(["data", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and ". scripts/env.sh" in error
    assert not list(tmp_path.iterdir())


def test_of_several_robots_one_must_be_named(exported, tmp_path):
    with rosbag.Bag(str(exported)) as old, rosbag.Bag(str(tmp_path / "two.bag"), "w") as new:
        for topic, message, time in old.read_messages():
            new.write(topic, message, time)
            new.write(f"/left{topic}", message, time)
    with pytest.raises(ConfigError, match="several robots: left/sim, sim"):
        bags.import_bag(tmp_path / "two.bag", tmp_path / "back")
    assert bags.import_bag(tmp_path / "two.bag", tmp_path / "back", "left/sim").episodes == 2
