"""Small videos, made and inspected with PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import skimage.data
from av.codec.context import Flags

from utils.image import Pixels
from utils.photo.video import Frames, video_writer

MILLISECONDS = Fraction(1, 1000)
EVEN = [40 * i for i in range(25)]
UNKNOWN = 2  # AVColorSpace


@cache
def photograph() -> Pixels:
    return np.asarray(skimage.data.astronaut())


def scene(i: int, height: int = 48, width: int = 64) -> Pixels:
    """Frame i of a camera that moves over a photograph."""
    return np.ascontiguousarray(photograph()[20 : 20 + height, 180 + i : 180 + i + width])


def film(
    path: Path,
    times: Sequence[int] = EVEN,
    frames: Sequence[Pixels] | None = None,
    video: str = "libx264",
    sound: str | None = "aac",
    colours: tuple[int, int] = (UNKNOWN, 0),
    options: dict[str, str] | None = None,
    last: int = 40,
    **stream: Any,
) -> None:
    """Write a video with time stamps and a last duration in milliseconds, and a second of tone."""
    frames = frames or [scene(i) for i in range(len(times))]
    height, width = frames[0].shape[:2]
    with av.open(path, "w", container_options=options) as output:
        picture: Any = output.add_stream(video, 25, time_base=stream.pop("time_base", MILLISECONDS))
        picture.width, picture.height = width, height
        picture.colorspace, picture.color_range = colours
        if "rotation" in stream:
            picture.set_display_rotation(*stream.pop("rotation"))
        for name, value in stream.items():
            setattr(picture.codec_context, name, value)
        picture.codec_context.flags |= Flags.frame_duration
        tone: Any = output.add_stream(sound, 48000, layout="mono") if sound else None
        ends = [*times[1:], times[-1] + last]
        for time, end, pixels in zip(times, ends, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.colorspace, frame.color_range = colours
            frame.pts, frame.duration, frame.time_base = time, end - time, MILLISECONDS
            output.mux(picture.encode(frame))
        output.mux(picture.encode(None))
        if tone:
            wave = 8000 * np.sin(np.arange(48000) * 2 * np.pi * 440 / 48000)
            samples = av.AudioFrame.from_ndarray(wave[None].astype(np.int16), "s16", "mono")
            samples.sample_rate, samples.pts = 48000, 0
            size = tone.codec_context.frame_size or 1024
            resampler = av.AudioResampler(tone.codec_context.format, "mono", 48000, size)
            for part in [*resampler.resample(samples), *resampler.resample(None)]:
                output.mux(tone.encode(part))
            output.mux(tone.encode(None))


def keep(source: Path, target: Path) -> Frames:
    """Write a video through our reader and writer, without changing a pixel."""
    frames = Frames(source)
    with video_writer(target, frames) as (write, _):
        for pixels in frames:
            write(pixels)
    return frames


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


def sound_of(path: Path) -> list[tuple[int, bytes]]:
    """The packets of the sound, each with its time in milliseconds."""
    with av.open(path) as container:
        packets = [(p.dts, p.time_base, bytes(p)) for p in container.demux(audio=0)]
    return [(round(1000 * dts * base), data) for dts, base, data in packets if dts is not None]
