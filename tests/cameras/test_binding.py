"""Cameras are found by what does not change, in a made-up /dev and /sys."""

from __future__ import annotations

import pytest

from ofrl_robot.cameras.binding import BY_CLASS, BY_PATH, Binding
from ofrl_robot.errors import CameraError


class Tree:
    """A /dev and /sys with the cameras that were plugged in, linked as the kernel and udev do."""

    def __init__(self, root):
        self.root, self._number = root, 0
        (root / "dev").mkdir()

    def plug(self, port, serial, interfaces=1):
        """A USB camera: one node for pictures and one for metadata per interface."""
        device = self.root / "sys/devices/pci0/usb1" / port
        device.mkdir(parents=True)
        if serial:
            (device / "serial").write_text(f"{serial}\n")
        for interface in range(interfaces):
            name = f"{port}:1.{interface}"
            (device / name).mkdir()
            for index in (0, 1):
                self._node(device / name, index, f"pci0-usb-0:{name}")
        return device

    def _node(self, interface, index, path):
        name = f"video{self._number}"
        self._number += 1
        node = interface / "video4linux" / name
        node.mkdir(parents=True)
        (node / "index").write_text(f"{index}\n")
        (node / "device").symlink_to(f"../../../{interface.name}")
        (self.root / "dev" / name).write_text("")
        for folder, link, target in (
            (BY_CLASS, name, node),
            (BY_PATH, f"{path}-video-index{index}", self.root / "dev" / name),
        ):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            (self.root / folder / link).symlink_to(target)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def resolve(tree, **binding):
    return Binding(root=tree.root, **binding).resolve().relative_to(tree.root.resolve())


def test_the_same_camera_whatever_its_number(tree, tmp_path):
    tree.plug("1-2", "AAA")
    tree.plug("1-3", "BBB")
    assert str(resolve(tree, serial="AAA")) == "dev/video0"
    assert str(resolve(tree, serial="BBB")) == "dev/video2"
    assert str(resolve(tree, path="pci0-usb-0:1-3:1.0-video-index0")) == "dev/video2"
    (tmp_path / "again").mkdir()
    other = Tree(tmp_path / "again")  # after a reboot: the other one came first
    other.plug("1-3", "BBB")
    other.plug("1-2", "AAA")
    assert str(resolve(other, serial="AAA")) == "dev/video2"
    assert str(resolve(other, path="pci0-usb-0:1-3:1.0-video-index0")) == "dev/video0"


def test_index_is_the_number(tree):
    tree.plug("1-2", "AAA")
    assert str(resolve(tree, index=1)) == "dev/video1"


def test_an_absent_camera_is_named_with_those_that_are_there(tree):
    tree.plug("1-2", "AAA")
    tree.plug("1-4", "")  # many have none
    with pytest.raises(CameraError, match="no camera has serial BBB.*one of: AAA$"):
        resolve(tree, serial="BBB")
    with pytest.raises(
        CameraError, match="no camera is at path pci0-usb-0:1-9.*1-2:1.0-video-index0"
    ):
        resolve(tree, path="pci0-usb-0:1-9:1.0-video-index0")
    with pytest.raises(CameraError, match="no camera is at index 7.*video0, video1"):
        resolve(tree, index=7)


def test_without_any_camera(tree):
    for binding in ({"serial": "A"}, {"path": "p"}, {"index": 0}):
        with pytest.raises(CameraError, match="no camera is connected"):
            resolve(tree, **binding)


def test_two_devices_of_one_serial_are_refused(tree):
    tree.plug("1-2", "SN0001")
    tree.plug("1-3", "SN0001")
    with pytest.raises(CameraError, match=r"2 cameras have serial SN0001 \(video0, video2\); bind"):
        resolve(tree, serial="SN0001")


def test_two_lenses_in_one_device_are_told_apart_by_path(tree):
    tree.plug("1-2", "DUAL", interfaces=2)
    with pytest.raises(CameraError, match="bind them by path"):
        resolve(tree, serial="DUAL")
    assert str(resolve(tree, path="pci0-usb-0:1-2:1.1-video-index0")) == "dev/video2"
