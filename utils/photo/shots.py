"""Where a video cuts from one shot to the next."""

import cv2
import numpy as np

from utils.image import Pixels

SIDE = 32  # of the thumbnails that are compared, pixels
CUT = 0.12  # mean difference of two thumbnails, as a share of the full range


class Shot:
    """Compares each frame of a video with the one before."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._kind: object = None

    def begins_with(self, frame: Pixels) -> bool:
        """Whether a frame, [H, W, 3 or 4], is the first of a shot. Call it for every frame."""
        grey = frame[..., :3].mean(axis=2) / np.iinfo(frame.dtype).max
        thumbnail = cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        last, self._last = self._last, thumbnail
        kind, self._kind = self._kind, (frame.shape, frame.dtype)
        if last is None or kind != self._kind:
            return True
        return float(np.abs(thumbnail - last).mean()) > CUT
