"""Turn a camera's raw frame into the image that is recorded and that the policy sees."""

from __future__ import annotations

import numpy as np

from ofrl_robot.specs import CameraSpec


def prepare(raw: np.ndarray, camera: CameraSpec) -> np.ndarray:
    """Crop a raw frame, then resize it by area interpolation.

    Args:
        raw: uint8 RGB (h, w, 3).
        camera: crop in raw pixels, and the size to make.

    Returns:
        uint8 RGB (camera.height, camera.width, 3).
    """
    if camera.crop is not None:
        top, left, height, width = camera.crop
        raw = raw[top : top + height, left : left + width]
    if raw.shape == camera.shape:
        return raw
    import cv2  # only needed when a frame really has to be resized

    return cv2.resize(raw, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
