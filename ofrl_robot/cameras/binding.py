"""Find the /dev/video* of a V4L2 camera by its serial number or USB port.

The kernel numbers cameras in the order in which they appear, so after a reboot or a loose plug
the wrist view can be the front view. A USB serial or a USB port cannot be mixed up. The device is
looked up at every opening.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Dict, List

from ofrl_robot.errors import CameraError

BY_PATH = Path("dev/v4l/by-path")
BY_CLASS = Path("sys/class/video4linux")


@dataclasses.dataclass(frozen=True)
class Binding:
    """One of three names of a V4L2 camera; the others are empty (``index`` -1).

    Attributes:
        serial: serial number of its USB device.
        path: name in /dev/v4l/by-path (the USB port), or an absolute path of a udev link.
        index: number of /dev/video*, whichever camera has it now.
        root: where ``/dev`` and ``/sys`` are.
    """

    serial: str = ""
    path: str = ""
    index: int = -1
    root: Path = Path("/")

    def __str__(self) -> str:
        if self.serial:
            return f"serial {self.serial}"
        return f"path {self.path}" if self.path else f"index {self.index}"

    def resolve(self) -> Path:
        """Return the device node, e.g. /dev/video2.

        Raises:
            CameraError: the camera is not there, or several match; names those that are there.
        """
        if self.serial:
            return self._by_serial()
        node = self.root / BY_PATH / self.path if self.path else self._node(self.index)
        if not node.exists():
            there = self._names(BY_PATH) if self.path else self._names(BY_CLASS)
            raise CameraError(f"no camera is at {self}", _instead(there))
        return node.resolve()

    def _by_serial(self) -> Path:
        found: Dict[str, List[str]] = {}
        for name in self._names(BY_CLASS):
            entry = self.root / BY_CLASS / name
            # a camera has several nodes; number 0 gives the pictures, the others metadata
            if _text(entry / "index") == "0":
                usb_device = (entry / "device").resolve().parent  # of the USB interface
                found.setdefault(_text(usb_device / "serial"), []).append(name)
        nodes = found.get(self.serial, [])
        if len(nodes) > 1:  # cheap cameras share one serial
            raise CameraError(
                f"{len(nodes)} cameras have serial {self.serial} ({', '.join(nodes)})",
                "bind them by path instead",
            )
        if not nodes:
            raise CameraError(f"no camera has {self}", _instead(sorted(set(found) - {""})))
        return self.root / "dev" / nodes[0]

    def _node(self, index: int) -> Path:
        return self.root / "dev" / f"video{index}"

    def _names(self, folder: Path) -> List[str]:
        try:
            return sorted(p.name for p in (self.root / folder).iterdir())
        except OSError:  # no camera was ever plugged in
            return []


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # no such attribute, or unplugged in between
        return ""


def _instead(there: List[str]) -> str:
    return f"plug it in, or use one of: {', '.join(there) or '(no camera is connected)'}"
