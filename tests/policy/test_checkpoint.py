"""The checkpoint file: whole or refused, and what to deploy from a run folder."""

from __future__ import annotations

import dataclasses
import json

import pytest
import safetensors.torch
import torch

from ofrl_robot.errors import CheckpointError
from ofrl_robot.nets.actor import Actor
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.policy import checkpoint
from ofrl_robot.policy.checkpoint import (
    ACTOR,
    CRITIC,
    Header,
    load_checkpoint,
    part,
    resolve_checkpoint,
)


def test_round_trip_gives_header_and_weights_back(save, header, tmp_path):
    path = save()
    back, weights = load_checkpoint(path)
    assert back == header  # tuples, numbers and nested specs alike
    again = save("again.safetensors", weights=weights)
    reread = load_checkpoint(again)[1]
    assert reread.keys() == weights.keys() and len(weights) > 4
    assert all(torch.equal(reread[k], weights[k]) for k in weights)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [again.name, path.name]  # no temporary


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(save, keep):
    path = save()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04N.", b"\xff" * 64])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, str(path), metadata)
    with pytest.raises(CheckpointError, match="not an ofrl checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("version", [0, 1, 2, 4, None])
def test_another_format_version_is_refused_by_number(save, version):
    path = save(format_version=version)
    with pytest.raises(CheckpointError, match=f"format {version}, but this version reads 3"):
        load_checkpoint(path)


@pytest.mark.parametrize(("encoder", "layers"), [("strided", (0, 2, 4)), ("cog", (0, 3, 6))])
def test_the_names_of_an_actors_weights_are_part_of_the_format(encoder, layers, header):
    """A network that is built otherwise must go on reading the files that there are."""
    nets = NetConfig(encoder=encoder, latent=8, hidden=(16, 8))
    actor = Actor(nets, header.shapes, header.action_spec)
    camera = "encoder.cameras.0"
    trunk = [f"{camera}.trunk.{i}" for i in layers]
    linear = [f"{camera}.project.0", f"{camera}.project.1", "head.0", "head.2", "head.4"]
    names = {f"{n}.{kind}" for n in trunk + linear for kind in ("weight", "bias")}
    assert set(actor.state_dict()) == names


def test_the_parts_of_a_checkpoint_are_told_apart_by_their_prefix(save):
    own = {"actor.w": torch.ones(1), "actor.critic.w": torch.ones(2), "critic.w": torch.zeros(3)}
    _, weights = load_checkpoint(save(weights=own))
    assert {k: len(v) for k, v in part(weights, ACTOR).items()} == {"w": 1, "critic.w": 2}
    assert {k: len(v) for k, v in part(weights, CRITIC).items()} == {"w": 3}
    assert part({"actor.w": torch.ones(1)}, CRITIC) == {}


def image(data, **changes):
    """The observation spec of a header with these changes of its camera."""
    spec = data["observation_spec"]
    return {**spec, "cameras": [{**spec["cameras"][0], **changes}]}


def state(data, entries):
    names = {"state_names": ["q"] * entries, "state_units": ["m"] * entries}
    return {**data["observation_spec"], **names}


def damage(data, key, value):
    changed = {**data, key: value}
    if value is KeyError:
        del changed[key]
    return json.dumps(changed)


@pytest.mark.parametrize(
    "text",
    [
        lambda data: "{",
        lambda data: "[]",
        lambda data: "null",
        lambda data: damage(data, "nets", KeyError),
        lambda data: damage(data, "algo", KeyError),
        lambda data: damage(data, "nets", 3),
        lambda data: damage(data, "nets", {"hidden": [4], "latent": -1}),
        lambda data: damage(data, "nets", {"hidden": [4], "colour": 1}),
        lambda data: damage(data, "surprise", 1),
        lambda data: damage(data, "action_spec", {"names": ["x"]}),
        lambda data: damage(data, "observation_spec", {"cameras": [{}]}),
        lambda data: damage(data, "observe", ["wrist"]),  # not in the observation spec
        lambda data: damage(data, "observe", []),
        lambda data: damage(data, "observe", ["image", "image"]),
        lambda data: damage(data, "observe", [["image"]]),
        lambda data: damage(data, "observe", 3),
        lambda data: damage(data, "control_rate_hz", 0.0),
        lambda data: damage(data, "control_rate_hz", -5.0),
        lambda data: damage(data, "control_rate_hz", float("nan")),
        lambda data: damage(data, "control_rate_hz", float("inf")),
        lambda data: damage(data, "control_rate_hz", "5"),
        lambda data: damage(data, "step", -1),
        lambda data: damage(data, "step", float("inf")),
        lambda data: damage(data, "task", ["x"]),
        lambda data: damage(data, "probe", {"data_q": "high"}),
        lambda data: damage(data, "probe", []),
        lambda data: damage(data, "nets", {**data["nets"], "hidden": [10**9]}),
        lambda data: damage(data, "nets", {**data["nets"], "hidden": [4] * 10**5}),
        lambda data: damage(data, "nets", {**data["nets"], "hidden": [[4]]}),
        lambda data: damage(data, "nets", {**data["nets"], "latent": 10**9}),
        lambda data: damage(data, "nets", {**data["nets"], "encoder": "huge"}),
        lambda data: damage(data, "nets", {**data["nets"], "n_critics": 51}),
        lambda data: damage(data, "nets", {**data["nets"], "dropout": "0.5"}),
        lambda data: damage(data, "observation_spec", image(data, height=10**6)),
        lambda data: damage(data, "observation_spec", image(data, width=0)),
        lambda data: damage(data, "observation_spec", image(data, width="24")),
        lambda data: damage(data, "observation_spec", state(data, 5000)),
        lambda data: damage(data, "action_spec", {**data["action_spec"], "scale": [1.0]}),
        lambda data: damage(data, "x\n\x1b[31m", 1),
        lambda data: "[" * 100000,
        lambda data: '{"format_version": 3, "algo": ' + "[" * 100000 + "]" * 100000 + "}",
        lambda data: damage(data, "algo", "x" * (1 << 20)),
    ],
)
def test_a_damaged_header_is_refused_with_the_file_named(tmp_path, header, text):
    path = tmp_path / "step_1.safetensors"
    metadata = {"ofrl_checkpoint": text(json.loads(header.to_json()))}
    safetensors.torch.save_file({"w": torch.zeros(2)}, str(path), metadata)
    with pytest.raises(CheckpointError, match="damaged header") as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["actor.head.4.bias", "critic.w"])
def test_weights_that_are_not_finite_are_refused(save, header, name, value):
    """They would drive the arm: a comparison with NaN is never true."""
    _, weights = load_checkpoint(save())
    weights[name] = weights.get(name, torch.zeros(8)).clone()
    weights[name][-1] = value
    path = save(weights=weights)
    with pytest.raises(CheckpointError, match=f"{name}.*NaN or infinity") as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_another_algorithm_than_its_run_is_refused(save, tmp_path):
    """A BC file under a CQL run's name: the header says what it is."""
    (tmp_path / "checkpoints").mkdir()
    path = save("checkpoints/step_0000500.safetensors", algo="bc")
    selected = {"file": "checkpoints/step_0000500.safetensors"}
    (tmp_path / "selected.json").write_text(json.dumps(selected))
    (tmp_path / "config.json").write_text(json.dumps({"algo": "bc"}))
    assert resolve_checkpoint(tmp_path) == resolve_checkpoint(path) == path
    (tmp_path / "config.json").write_text(json.dumps({"algo": "cql"}))
    for named in (tmp_path, path):
        with pytest.raises(CheckpointError, match="policy of 'bc', but its run trained 'cql'"):
            resolve_checkpoint(named)


def test_a_saved_checkpoint_can_be_read_by_other_users(save):
    assert save().stat().st_mode & 0o777 == 0o644


def test_saving_is_all_or_nothing(save, monkeypatch):
    path = save()
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(step=501)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_hash_is_of_the_content(save):
    one, two, other = save("a.safetensors"), save("b.safetensors"), save("c.safetensors", step=1)
    hashes = [checkpoint.checkpoint_hash(p) for p in (one, two, other)]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 64


def test_shapes_are_those_of_what_the_policy_observes(header):
    cameras = header.observation_spec.cameras
    wrist = dataclasses.replace(cameras[0], name="wrist", height=10, width=20)
    spec = dataclasses.replace(header.observation_spec, cameras=cameras + (wrist,))
    two = dataclasses.replace(header, observation_spec=spec, observe=("wrist", "state"))
    assert two.shapes == {"wrist": (10, 20, 3), "state": (10,)}
    assert Header.from_json(two.to_json(), "here") == two


def test_resolve_takes_a_file_as_it_is_and_a_run_by_its_choice(save, tmp_path, monkeypatch):
    path = save()
    assert resolve_checkpoint(path) == path
    (tmp_path / "selected.json").write_text(json.dumps({"file": path.name}))
    assert resolve_checkpoint(tmp_path) == path
    monkeypatch.chdir(str(tmp_path.parent))  # whatever the working folder
    assert load_checkpoint(resolve_checkpoint(tmp_path))[0].step == 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no selected.json.*ofrl diagnose"),
        ("{", "damaged.*ofrl diagnose"),
        ("[]", "damaged.*ofrl diagnose"),
        ("{}", "damaged.*ofrl diagnose"),
        ('{"file": 3}', "damaged.*ofrl diagnose"),
        pytest.param("[" * 100000, "damaged.*ofrl diagnose", id="deep"),
        ('{"file": "/etc/passwd"}', "damaged.*outside.*ofrl diagnose"),
        ('{"file": "../other/checkpoints/x"}', "damaged.*outside.*ofrl diagnose"),
        (b"\xff\xfe", "damaged.*ofrl diagnose"),
    ],
)
def test_resolve_refuses_a_run_without_a_usable_choice(tmp_path, content, message):
    if content is not None:
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "selected.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        resolve_checkpoint(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder or checkpoint"):
        resolve_checkpoint(tmp_path / "nowhere")
    (tmp_path / "selected.json").write_text('{"file": "checkpoints/gone.safetensors"}')
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_checkpoint(resolve_checkpoint(tmp_path))
