"""What the container of a video can hold. It is tried, in memory, before the first frame."""

import io
import itertools
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import Container, InputContainer
from av.error import FFmpegError
from av.stream import Stream

from utils.errors import UserError

TRIED = 16  # packets of sound: some codecs are refused with their first packet
PLACE = "com.apple.quicktime.location.ISO6709"  # where telephones write it; others read `location`
# Facts about the old file, which FFmpeg lists among the metadata.
TECHNICAL = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}


class Form(NamedTuple):
    """How the result of a video is written."""

    suffix: str
    """.mp4, or .mov if that holds more of the sound."""
    sound: list[int]
    """Indices of the sound streams that it holds."""
    metadata: dict[str, str]
    chapters: list[Any]
    """As PyAV has them; time 0 is the start of the source."""
    options: dict[str, str]
    """For the muxer."""
    notes: list[str]
    """What is left out."""


def open_video(path: Path) -> InputContainer:
    """Open a video; text of an unknown encoding in its metadata is no reason to refuse it.

    Raises:
        UserError: it cannot be read.
    """
    try:  # FFmpeg takes `a:b.mp4` for a protocol
        return av.open(str(path.absolute()), "r", metadata_errors="replace")
    except PermissionError:
        raise UserError(f"cannot read {path}: no permission") from None
    except FFmpegError:
        raise unreadable(path) from None


def unreadable(path: Path) -> UserError:
    """The error of a file in which there is no picture."""
    return UserError(f"cannot read {path}: truncated, not a video, or of an unsupported codec")


def form_for(path: Path, picture: int, rate: Fraction) -> Form:
    """Find out how much of a video, beside its picture, MP4 or MOV can hold.

    Args:
        path: of the video.
        picture: index of the stream whose frames are changed.
        rate: frames per second, for the time code.

    Raises:
        UserError: the video cannot be read.
    """
    with open_video(path) as original:
        held = {
            suffix: [s.index for s in original.streams.audio if _holds(suffix, path, s)]
            for suffix in (".mp4", ".mov")
        }
        suffix, sound = max(held.items(), key=lambda item: len(item[1]))
        notes = _left_out(s for s in original.streams if s.index not in (picture, *sound))
        metadata = _metadata(original)
        chapters = _shifted(original)
    # Most players read the plain form, but it has names for few things only.
    forms: list[dict[str, str]] = [{}, {"movflags": "use_metadata_tags"}]
    tried = [_try(suffix, rate, metadata, [], options)[0] for options in forms]
    kept = max(tried, key=len)
    options = forms[tried.index(kept)]
    if lost := sorted(metadata.keys() - kept):
        notes.append(f"metadata left out: {', '.join(lost)}")
        metadata = {key: text for key, text in metadata.items() if key in kept}
    if chapters and _try(suffix, rate, metadata, chapters, options)[1] < len(chapters):
        notes.append(f"chapters left out: {len(chapters)}")
        chapters = []
    return Form(suffix, sound, metadata, chapters, options, notes)


def _holds(suffix: str, path: Path, stream: AudioStream) -> bool:
    """Whether a container takes the first packets of a sound stream."""
    try:
        if suffix == ".mp4" and stream.codec_context.name.startswith("pcm_"):
            return False  # it holds some kinds, but few players know
        with open_video(path) as original, av.open(io.BytesIO(), "w", suffix[1:]) as output:
            source = original.streams[stream.index]
            assert isinstance(source, AudioStream)
            copy = output.add_stream_from_template(source)
            output.start_encoding()
            packets = (packet for packet in original.demux(source) if packet.dts is not None)
            for packet in itertools.islice(packets, TRIED):
                packet.stream = copy
                output.mux(packet)
        return True
    except Exception:  # PyAV and FFmpeg raise many types; the picture is written without this sound
        return False


def _try(
    suffix: str,
    rate: Fraction,
    metadata: dict[str, str],
    chapters: list[Any],
    options: dict[str, str],
) -> tuple[set[str], int]:
    """Write a video without frames; return the keys it holds and the number of chapters."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", suffix[1:], options=options) as output:
            video = output.add_stream("libx264", rate)
            video.width = video.height = 16
            output.metadata.update(metadata)
            output.set_chapters(chapters)
            output.start_encoding()
        file.seek(0)
        with av.open(file, metadata_errors="replace") as result:
            found = {key.lower() for key in _metadata(result)}
            return {key for key in metadata if key.lower() in found}, len(result.chapters())
    except Exception:  # as above
        return set(), 0


def _metadata(video: Container) -> dict[str, str]:
    """What a video says of its content. FFmpeg repeats some of it, with a language in the key."""
    found = {
        key: text
        for key, text in video.metadata.items()
        if text and key.lower() not in TECHNICAL and key.rpartition("-")[0] not in video.metadata
    }
    for stream in video.streams:
        if "timecode" in stream.metadata:
            found.setdefault("timecode", stream.metadata["timecode"])
    if PLACE in found:
        found.setdefault("location", found[PLACE])
    return found


def _shifted(original: InputContainer) -> list[Any]:
    """The chapters, with times from the start of the video."""
    start = Fraction(original.start_time or 0, av.time_base)
    chapters: list[Any] = original.chapters()
    for chapter in chapters:
        shift = round(start / chapter["time_base"])
        for key in ("start", "end"):
            chapter[key] = max(0, chapter[key] - shift)
    return chapters


def _left_out(streams: Iterable[Stream]) -> list[str]:
    """One note that counts streams by their type and codec."""
    names = []
    for stream in streams:
        chapters = stream.metadata.get("handler_name") == "SubtitleHandler"
        if stream.type == "data" and (chapters or "timecode" in stream.metadata):
            continue  # read elsewhere
        context = getattr(stream, "codec_context", None)
        names.append(f"{stream.type} ({context.name})" if context else stream.type)
    counts = (f"{count} {name}" for name, count in sorted(Counter(names).items()))
    return [f"streams left out: {', '.join(counts)}"] if names else []
