"""Read and write videos with FFmpeg, through PyAV. Frames are uint8 [H, W, 3], RGB, upright."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Stream
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from utils.errors import UserError
from utils.files import is_same, replacing
from utils.image import Pixels
from utils.photo.container import form_for, open_video, unreadable

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".3g2"),
    *(".ts", ".mts", ".m2ts", ".m2t", ".m2v", ".vob", ".asf", ".flv", ".f4v", ".dv", ".mxf"),
    *(".ogv", ".divx", ".mod", ".tod", ".qt"),
)

CRF = "17"  # constant quality of x264: no visible loss; 0 is lossless, 23 its default
RGB, BT709, LIMITED = 0, 1, 1  # of FFmpeg's AVColorSpace and AVColorRange, for sources in RGB
# Conversions to RGB and back that change a natural image by less than a grey level.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


# Names of side data of frames that is lost, for the notes.
SIDE_DATA = {
    "A53_CC": "closed captions",
    "CONTENT_LIGHT_LEVEL": "HDR metadata",
    "DOVI_METADATA": "HDR metadata",
    "DYNAMIC_HDR_PLUS": "HDR metadata",
    "DYNAMIC_HDR_VIVID": "HDR metadata",
    "MASTERING_DISPLAY_METADATA": "HDR metadata",
    "ICC_PROFILE": "colour profile",
    "SPHERICAL": "how to show it on a sphere",
    "STEREO3D": "how to show it in 3D",
}


def is_video(path: Path) -> bool:
    """Whether the suffix of a file is that of a video."""
    return path.suffix.lower() in SUFFIXES


class Frames:
    """The frames of a video in order, upright. Iterate only once; the length is an estimate.

    Broken frames are skipped; so are frames of another size than the first.

    Attributes:
        path: of the video.
        stream: the video stream that is read.
        rate: mean number of frames per second.
        frame: the decoded frame behind the pixels yielded last: its time and its colour tags.
        notes: what was lost or changed, for the user. Complete after the result is written.

    Raises:
        UserError: the file is missing, not a video, or no frame can be decoded.
    """

    frame: av.VideoFrame

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._container = open_video(path)
        stream = self._container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise unreadable(path)
        self.stream = stream
        self.rate = stream.average_rate or Fraction(25)
        if stream.guessed_rate and self.rate > 10 * stream.guessed_rate:
            self.rate = stream.guessed_rate  # the mean of raw DV is the rate of its clock
        longest = (self._container.duration or 0) / 1e6  # of all streams
        if "matroska" in self._container.format.name:  # counted from time 0
            longest -= (self._container.start_time or 0) / 1e6
        self._seconds = float((stream.duration or 0) * (stream.time_base or 0)) or longest

    def __len__(self) -> int:
        return self.stream.frames or max(1, round(self._seconds * self.rate))

    def __iter__(self) -> Iterator[Pixels]:
        start = self.stream.start_time or 0
        whole, broken, resized, size, matrix, last = 0, 0, 0, None, [1, 0, 0, 1], start - 1
        clock = _Clock(self.stream)
        for packet in _packets(self._container, [self.stream]):
            if not packet.size and packet.dts is not None:  # Theora: the last frame stays
                continue
            try:
                for frame in self.stream.decode(packet):
                    if frame.is_corrupt:
                        broken += 1
                        continue
                    if size not in (None, (frame.width, frame.height)):
                        resized += 1
                        continue
                    pixels = frame.to_ndarray(format="rgb24", interpolation=EXACT)
                    if not whole:
                        size = frame.width, frame.height
                        side = frame.side_data  # ask one frame only: it keeps itself alive
                        matrix = _display_matrix(side.get("DISPLAYMATRIX"))
                        self.notes.extend(_reduced(frame, self.stream.metadata))
                        named = {SIDE_DATA[key] for key in SIDE_DATA if side.get(key) is not None}
                        if named:
                            self.notes.append(f"left out: {', '.join(sorted(named))}")
                    whole += 1
                    # AVI has no presentation times. An encoder needs times that increase.
                    time = frame.dts if self._container.format.name == "avi" else frame.pts
                    time = None if time is None else clock.continued(time, frame.duration)
                    last = frame.pts = max(last + 1, last + 1 if time is None else time)
                    self.frame = frame
                    yield _upright(pixels, matrix)
            except FFmpegError:
                broken += 1
        if not whole:
            raise unreadable(self.path)
        if clock.restarts:
            self.notes.append(f"time stamps that start again, continued: {clock.restarts}")
        if broken:
            self.notes.append(f"broken frames left out: {broken}")
        if resized:
            self.notes.append(f"frames of another size than the first left out: {resized}")
        end = float((last + self.frame.duration - start) * (self.stream.time_base or 0))
        if (
            whole + broken + resized < 0.98 * len(self) and end < self._seconds - 0.5
        ):  # both are estimates
            self.notes.append(f"the picture ends after {end:.1f} of {self._seconds:.1f} seconds")


class _Clock:
    """Continues the time stamps of a stream where they jump back, as in clips that were joined."""

    def __init__(self, stream: Stream) -> None:
        self.tolerance = 0.5 / (stream.time_base or 1)  # half a second
        self.shift, self.last, self.end, self.restarts = 0, -math.inf, 0, 0

    def continued(self, time: int, duration: int | None) -> int:
        """The time stamp of the next frame or packet, in the time base of the stream."""
        if time + self.shift < self.last - self.tolerance:
            self.shift = self.end - time
            self.restarts += 1
        self.last = time + self.shift
        self.end = max(self.end, time + self.shift + max(1, duration or 0))
        return time + self.shift


class Write(Protocol):
    """Appends the changed pixels of a frame to a video; the frame is by default `Frames.frame`."""

    def __call__(self, pixels: Pixels, frame: av.VideoFrame | None = None) -> None: ...  # noqa: D102


@contextmanager
def video_writer(path: Path, source: Frames) -> Iterator[tuple[Write, Path]]:
    """Yield a function that appends the changed pixels of a frame to a video, and its path.

    The picture is H.264 with 8 bits and 4:2:0 chroma, which plays everywhere. It keeps the time
    stamps, colour tags and pixel aspect ratio of the source. 4:2:0 needs even sides: odd ones are
    padded by repeating the last row or column. The sound is copied unchanged. The file is written
    atomically.

    Args:
        path: of the MP4 file; its folder is created if missing. If MP4 cannot hold the sound, the
            suffix becomes .mov. Sound that neither can hold is left out. Time 0 of the file is the
            start of the source.
        source: the video whose frames are changed.

    Raises:
        UserError: the file cannot be written.
    """
    with open_video(source.path) as original:
        form = form_for(source.path, source.stream.index, source.rate)
        path = path.with_suffix(form.suffix)
        if is_same(path, source.path):
            raise UserError(f"{path} is the input, which is never overwritten: change --output")
        source.notes.extend(form.notes)
        start = Fraction(original.start_time or 0, av.time_base)
        try:
            with replacing(path) as file:
                output = av.open(file, "w", form.suffix[1:], options=form.options)
                output.metadata.update(form.metadata)
                output.set_chapters(form.chapters)
                base = source.stream.time_base
                video = output.add_stream("libx264", source.rate, {"crf": CRF}, time_base=base)
                sound = [s for s in original.streams.audio if s.index in form.sound]
                copies = {stream.index: output.add_stream_from_template(stream) for stream in sound}
                for stream in sound:
                    for key in ("language", "title"):
                        if key in stream.metadata:
                            copies[stream.index].metadata[key] = stream.metadata[key]
                copying = _copy(original, copies, output, start, source.notes)
                heard = -math.inf

                def write(pixels: Pixels, frame: Any = None) -> None:
                    nonlocal heard
                    frame = _to_frame(pixels, frame or source.frame)
                    frame.pts -= round(start / frame.time_base)
                    if not video.codec_context.is_open:
                        _adjust(video, frame, source)
                        if pixels.shape[:2] != (frame.height, frame.width):
                            source.notes.append("odd sides padded to even ones")
                    output.mux(video.encode(frame))
                    while heard < frame.time:  # so that sound and picture alternate in the file
                        heard = next(copying, math.inf)

                yield write, path
                output.mux(video.encode(None))
                for _ in copying:
                    pass
                output.close()  # only here: after an error it would write to a full disk again
        except FFmpegError as error:
            raise UserError(f"cannot write {path}: {error}") from None


def _packets(container: InputContainer, streams: Sequence[Stream]) -> "Iterator[Packet[Stream]]":
    """The packets of some streams, up to the end or to an error of the file."""
    with suppress(FFmpegError):
        if streams:  # none would mean all
            yield from container.demux(*streams)


def _copy(
    original: InputContainer,
    copies: Mapping[int, Stream],
    output: OutputContainer,
    start: Fraction,
    notes: list[str],
) -> Iterator[float]:
    """Copy the packets of some streams one by one; yield the time of each in seconds."""
    refused, last = 0, dict.fromkeys(copies, -math.inf)
    clocks = {index: _Clock(original.streams[index]) for index in copies}
    for packet in _packets(original, [original.streams[index] for index in copies]):
        index = packet.stream_index
        if packet.dts is None:
            continue
        dts = clocks[index].continued(packet.dts, packet.duration)
        if dts > last[index]:  # else the file is broken here
            last[index] = dts
            shift = dts - packet.dts - round(start / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts += shift
            packet.stream = copies[index]
            time = float(packet.dts * packet.time_base)
            try:
                output.mux(packet)
            except (ArgumentError, InvalidDataError):  # a fault of this packet, not of the drive
                refused += 1
            yield time
    if refused:
        notes.append(f"broken parts of the sound left out: {refused}")


def _to_frame(pixels: Pixels, source: av.VideoFrame) -> av.VideoFrame:
    """Convert pixels to 4:2:0 with even sides, and with the time and the colours of a frame."""
    h, w = pixels.shape[:2]
    even = np.pad(pixels, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    # A converted frame keeps all tags. PyAV could not set that of the place of the chroma samples.
    frame = source.reformat(even.shape[1], even.shape[0], "rgb24")
    frame.make_writable()
    plane: Any = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    rows[:, : 3 * plane.width] = even.reshape(plane.height, -1)
    frame.pict_type = 0  # the encoder decides
    if source.format.is_rgb or source.colorspace == RGB:  # PNG in grey has this tag
        frame.colorspace, frame.color_range = BT709, LIMITED
    return frame.reformat(format="yuv420p", interpolation=EXACT)


def _adjust(video: VideoStream, frame: av.VideoFrame, source: Frames) -> None:
    """Set up an encoder for frames like this one."""
    context = video.codec_context
    context.width, context.height = frame.width, frame.height
    context.colorspace, context.color_range = frame.colorspace, frame.color_range
    context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
    context.max_b_frames = 0  # their decoding times falsify the duration of a variable rate
    context.flags |= Flags.frame_duration
    if aspect := source.stream.sample_aspect_ratio:
        context.sample_aspect_ratio = 1 / aspect if source.frame.rotation % 180 else aspect


def _display_matrix(matrix: Any) -> list[int]:
    """The entries a, b, c, d of x' = a x + c y, y' = b x + d y, which turn a frame upright."""
    return (
        [1, 0, 0, 1] if matrix is None else np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]].tolist()
    )


def _reduced(frame: av.VideoFrame, metadata: Mapping[str, str]) -> list[str]:
    """Notes about what 8 bits of opaque colour in whole frames cannot hold of a frame."""
    notes, parts = [], frame.format.components
    if frame.interlaced_frame:
        notes.append("interlaced: deinterlace it first")
    if any(part.is_alpha for part in parts) or metadata.get("alpha_mode") == "1":
        notes.append("transparency left out")
    if parts[0].bits > 8:
        notes.append(f"{parts[0].bits} bits reduced to 8")
    return notes


def _upright(pixels: Pixels, matrix: Sequence[int]) -> Pixels:
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.array(pixels)  # a copy: the frame may be written to
