"""The label page: every click is on disk at once, and nobody else's request is."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any, Tuple

import cv2
import h5py
import numpy as np
import pytest

from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.pages.label_server import LabelServer

SUCCESS, FAILURE, UNKNOWN = 1, 0, -1
STEPS = 9
FIRST = "episode_000000"


@pytest.fixture
def folder(record, tmp_path):
    return record(tmp_path / "data", [SUCCESS, FAILURE, UNKNOWN])


@pytest.fixture
def server(folder):
    with LabelServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: LabelServer, method: str, path: str, body: Any = None, **headers: str
) -> Tuple[int, Any]:
    """(status, answer); JSON is parsed. ``path`` is below the secret one unless it has a slash."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    path = path if path.startswith("/") else server.root + path
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    is_json = reply.getheader("Content-Type") == "application/json"
    return reply.status, json.loads(content) if is_json else content


def click(server: LabelServer, **body: Any) -> Tuple[int, Any]:
    return ask(server, "POST", "labels", json.dumps(body), Content_Type="application/json")


def test_a_label_is_on_disk_when_the_answer_comes(server, folder):
    status, answer = click(server, episode=FIRST, label="failure")
    assert status == 200 and (answer["label"], answer["source"]) == ("failure", "browser")
    meta = read_episode(folder / (FIRST + ".h5")).meta
    assert (meta.success, meta.label_source) == (FAILURE, "browser")
    click(server, episode=FIRST, label="unknown")
    assert read_episode(folder / (FIRST + ".h5")).meta.success == UNKNOWN
    _, episodes = ask(server, "GET", "episodes")
    assert [e["label"] for e in episodes] == ["unknown", "failure", "unknown"]
    assert sorted(p.name for p in folder.iterdir()) == [e["name"] + ".h5" for e in episodes]


def test_success_from_a_step_on(server, folder):
    status, answer = click(server, episode="episode_000001", reward_from=4)
    assert status == 200 and answer["label"] == "success" and answer["rewarded"] == [4, 5, 6, 7, 8]
    path = folder / "episode_000001.h5"
    assert read_episode(path).rewards.tolist() == [0.0] * 4 + [1.0] * 5
    with h5py.File(str(path), "r") as file:
        assert file["data/demo_0"].attrs["reward_source"] == "browser"
        assert file["data/demo_0/rewards_original"][:].tolist() == [0.0] * STEPS
    _, answer = click(server, episode="episode_000001", reward_from=STEPS)
    assert (answer["label"], answer["rewarded"]) == ("success", [])  # rewards only


def test_page_and_frames(server, folder):
    status, page = ask(server, "GET", "")
    assert status == 200 and b"Label data" in page and b"http://" not in page
    truth = read_episode(folder / (FIRST + ".h5")).images["image"]
    status, code = ask(server, "GET", f"frames/{FIRST}/{STEPS}")
    frame = cv2.imdecode(np.frombuffer(code, np.uint8), 1)[..., ::-1]
    assert status == 200 and np.array_equal(frame[::36, ::36], truth[STEPS])
    for path in ("frames/{}/10", "frames/{}/-1", "frames/{}/x", "frames/../{}/0", "frames/no/0"):
        status, answer = ask(server, "GET", path.format(FIRST))
        assert status == 404 and answer["error"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("{", 400, "not JSON"),
        ("[" * 4000, 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        ("[]", 400, "send"),
        ("null", 400, "send"),
        ({"episode": FIRST}, 400, "send"),
        ({"episode": FIRST, "label": "failure", "reward_from": 1}, 400, "send"),
        ({"episode": FIRST, "label": "failure", "more": 1}, 400, "send"),
        ({"episode": 0, "label": "failure"}, 400, "not a name"),
        ({"episode": ["a"], "label": "failure"}, 400, "not a name"),
        ({"episode": "../data/" + FIRST, "label": "failure"}, 404, "no episode"),
        ({"episode": "episode_000009", "label": "failure"}, 404, "no episode"),
        ({"episode": FIRST, "label": "maybe"}, 400, "not one of"),
        ({"episode": FIRST, "label": 0}, 400, "not one of"),
        ({"episode": FIRST, "label": {}}, 400, "not one of"),
        ({"episode": FIRST, "reward_from": -1}, 400, "0 to 9"),
        ({"episode": FIRST, "reward_from": STEPS + 1}, 400, "0 to 9"),
        ({"episode": FIRST, "reward_from": True}, 400, "0 to 9"),
        ({"episode": FIRST, "reward_from": 1.0}, 400, "0 to 9"),
        ("x" * 5000, 413, "4096 bytes"),
    ],
)
def test_a_bad_click_changes_nothing(server, folder, body, status, text):
    before = (folder / (FIRST + ".h5")).read_bytes()
    content = json.dumps(body) if isinstance(body, dict) else body
    found, answer = ask(server, "POST", "labels", content, Content_Type="application/json")
    assert found == status and text in answer["error"]
    assert (folder / (FIRST + ".h5")).read_bytes() == before


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Host": "evil.example"}, None, 403),  # a name that was rebound to this computer
        ({"Host": "127.0.0.1:1"}, None, 403),
        ({}, "/labels", 404),
        ({}, "/wrong-token-of-some-length/labels", 404),
        ({"Content_Type": "text/plain"}, None, 415),  # what a form on another page can send
        ({"Content_Length": "x"}, None, 411),
        ({"Content_Length": "99999999999999"}, None, 413),
    ],
)
def test_requests_of_others_are_refused(server, folder, headers, path, status):
    before = (folder / (FIRST + ".h5")).read_bytes()
    body = json.dumps({"episode": FIRST, "label": "failure"})
    headers = {"Content_Type": "application/json", **headers}
    found, answer = ask(server, "POST", path or "labels", body, **headers)
    assert found == status and answer["error"]
    assert (folder / (FIRST + ".h5")).read_bytes() == before
    if "Host" in headers:
        assert ask(server, "GET", "", Host=headers["Host"])[0] == 403


def test_it_listens_to_this_computer_only_and_in_json(server):
    assert server.server_address[0] == "127.0.0.1"
    status, answer = ask(server, "DELETE", "labels")
    assert status == 501 and answer["error"]


def test_a_stalled_client_blocks_nobody(server):
    with socket.create_connection(("127.0.0.1", server.server_port)) as stalled:
        stalled.sendall(b"POST ")
        assert click(server, episode=FIRST, label="failure")[0] == 200


def test_clicks_from_two_windows_are_both_kept(server, folder):
    labels = {FIRST: "failure", "episode_000002": "success"}
    threads = [
        threading.Thread(target=click, args=(server,), kwargs={"episode": name, "label": label})
        for name, label in labels.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = [read_episode(folder / (name + ".h5")).meta.success for name in labels]
    assert stored == [FAILURE, SUCCESS]


def test_while_a_recorder_is_at_work_the_page_says_so(server, folder):
    with one_writer(folder):
        status, answer = click(server, episode=FIRST, label="failure")
    assert status == 409 and "another recorder" in answer["error"]
    assert click(server, episode=FIRST, label="failure")[0] == 200


def test_an_episode_that_is_gone_is_an_error_and_not_the_end(server, folder):
    (folder / (FIRST + ".h5")).unlink()
    status, answer = click(server, episode=FIRST, label="failure")
    assert status == 409 and "no such file" in answer["error"]
    assert click(server, episode="episode_000001", label="success")[0] == 200


def test_what_cannot_be_served(folder, tmp_path, server):
    with pytest.raises(DatasetError, match="no such dataset"):
        LabelServer(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=f"port {server.server_port} cannot"):
        LabelServer(folder, server.server_port)
    with pytest.raises(ConfigError, match="port 99999 cannot"):
        LabelServer(folder, 99999)


@pytest.mark.slow
def test_the_verb_serves_until_ctrl_c(folder):
    command = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command += "from ofrl_robot.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", command, "data", "label", str(folder), "--browser"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("open http://127.0.0.1:")
        host, _, path = line.split()[1][len("http://") :].partition("/")
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("GET", "/" + path)
        assert connection.getresponse().status == 200
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()
