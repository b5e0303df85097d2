"""Videos as files and frames, without their sound. Frames are [H, W, 3], RGB, uint8."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError
from utils.image import Pixels

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in SUFFIXES


class Frames:
    """The frames of a video, upright, in order; to be walked once. Their number is a guess.

    Attributes:
        rate: frames a second.

    Raises:
        UserError: the file is missing or no video.
    """

    def __init__(self, path: Path) -> None:
        _silence()
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise UserError(f"cannot read {path}: not a whole video file")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0

    def __len__(self) -> int:
        return max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Pixels]:
        while True:
            there, frame = self._capture.read()
            if not there:
                return
            yield np.ascontiguousarray(frame[..., ::-1])


@contextmanager
def video_writer(path: Path, rate: float) -> Iterator[Callable[[Pixels], None]]:
    """Give a function that appends a frame to an MP4 file; whole or not at all.

    The codec is MPEG-4 part 2, which every OpenCV can write. It wants even sides: an odd one is
    continued by a copy of its last row or column.

    Args:
        path: of the video; its folder is made as needed.
        rate: frames a second.
    """
    _silence()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.mp4")
    writer = cv2.VideoWriter()

    def write(frame: Pixels) -> None:
        h, w = frame.shape[:2]
        even = np.pad(frame[..., ::-1], ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        if not writer.isOpened():
            code = cv2.VideoWriter.fourcc(*"mp4v")
            if not writer.open(str(partial), cv2.CAP_FFMPEG, code, rate, even.shape[1::-1]):
                raise UserError(f"cannot write {path}: OpenCV has no MPEG-4 encoder here")
        writer.write(even)

    try:
        yield write
        writer.release()
        os.replace(partial, path)
    finally:
        writer.release()
        partial.unlink(missing_ok=True)


def _silence() -> None:
    """OpenCV and FFmpeg would write their own lines beside ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
