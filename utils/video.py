"""Read and write videos without sound. Frames are uint8 [H, W, 3], RGB."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError
from utils.image import Pixels

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp")


def is_video(path: Path) -> bool:
    """Whether the suffix of a file is that of a video."""
    return path.suffix.lower() in SUFFIXES


class Frames:
    """The frames of a video in order, upright. Iterate only once; the length is an estimate.

    Attributes:
        rate: frames per second; the mean for a video with a variable rate.

    Raises:
        UserError: the file is missing, not a video, or no frame can be decoded.
    """

    def __init__(self, path: Path) -> None:
        _silence()
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        there, self._first = self._capture.read()
        if not there:
            raise UserError(
                f"cannot read {path}: truncated, not a video, or of an unsupported codec"
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 1 <= rate <= 240 else 25.0

    def __len__(self) -> int:
        return max(1, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Pixels]:
        there, frame = True, self._first
        while there:
            yield np.ascontiguousarray(frame[..., ::-1])
            there, frame = self._capture.read()


@contextmanager
def video_writer(path: Path, rate: float) -> Iterator[Callable[[Pixels], None]]:
    """Yield a function that appends a frame to an MP4 file, which is written atomically.

    The codec is MPEG-4 part 2, which every OpenCV build can write. It needs even sides: odd ones
    are padded by repeating the last row or column.

    Args:
        path: of the video; its folder is created if missing.
        rate: frames per second, rounded to three decimals, or to two from 65 on.

    Raises:
        UserError: there is no encoder, a frame differs in size from the first, or not all frames
            were written.
    """
    _silence()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.mp4")
    writer, sizes = cv2.VideoWriter(), []

    def write(frame: Pixels) -> None:
        h, w = frame.shape[:2]
        sizes.append((w + w % 2, h + h % 2))
        if len(sizes) == 1:
            code, limited = cv2.VideoWriter.fourcc(*"mp4v"), round(rate, 3 if rate < 65 else 2)
            if not writer.open(str(partial), cv2.CAP_FFMPEG, code, limited, sizes[0]):
                raise UserError(
                    f"cannot write {path}: OpenCV cannot encode MPEG-4 at {limited} frames/s"
                )
        if sizes[-1] != sizes[0]:
            raise UserError(
                f"cannot write {path}: frame {len(sizes)} has size {sizes[-1]}, expected {sizes[0]}"
            )
        writer.write(np.pad(frame[..., ::-1], ((0, h % 2), (0, w % 2), (0, 0)), mode="edge"))

    try:
        yield write
        writer.release()  # reports no errors, so count the frames
        if (kept := len(Frames(partial))) < len(sizes):
            raise UserError(
                f"cannot write {path}: only {kept} of {len(sizes)} frames; is the disk full?"
            )
        os.replace(partial, path)
    finally:
        writer.release()
        partial.unlink(missing_ok=True)


def _silence() -> None:
    """Disable the log output of OpenCV and FFmpeg."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
