"""What is kept of a video beside its picture and sound, and what is counted and named."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from films import EVEN, decode, film, keep, scene, sound_of

from utils.photo import container
from utils.photo.container import form_for
from utils.photo.outputs import plan_outputs

DATE, PLACE = "2024-05-01T10:00:00", "+48.1000-011.5000/"


def clip(
    path: Path, metadata: dict[str, str], chapters: int = 0, start: int = 0, **options: str
) -> None:
    """Twelve frames, with metadata and chapters of a tenth of a second, from a start in seconds."""
    with av.open(path, "w", options=options) as output:
        picture = output.add_stream("libx264", 10)
        picture.width, picture.height = 64, 48
        output.metadata.update(metadata)
        marks: list[Any] = [
            {
                "id": i,
                "start": 1000 * start + 100 * i,
                "end": 1000 * start + 100 * i + 100,
                "time_base": Fraction(1, 1000),
                "metadata": {"title": f"chapter {i}"},
            }
            for i in range(chapters)
        ]
        output.set_chapters(marks)
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(scene(i), "rgb24")
            frame.pts = 10 * start + i
            output.mux(picture.encode(frame))
        output.mux(picture.encode(None))


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv", "clip.mov"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_uncompressed_sound_goes_into_mov(tmp_path: Path, name: str, layout: str) -> None:
    source = tmp_path / name
    with av.open(source, "w") as output:
        picture = output.add_stream("mpeg4", 10)
        picture.width, picture.height = 64, 48
        tone = output.add_stream("pcm_s16le", 48000, layout=layout)
        for i in range(5):
            output.mux(picture.encode(av.VideoFrame.from_ndarray(scene(i), "rgb24")))
            data = np.full((1, 4800 * (1 + (layout == "stereo"))), i, np.int16)
            samples = av.AudioFrame.from_ndarray(data, "s16", layout)
            samples.sample_rate, samples.pts = 48000, 4800 * i
            output.mux(tone.encode(samples))
        output.mux([*picture.encode(None), *tone.encode(None)])
    if name == "clip.mov":  # many cameras write no channel layout
        source.write_bytes(source.read_bytes().replace(b"chan", b"free"))
    frames = keep(source, tmp_path / "out" / "clip.mp4")
    assert len(decode(tmp_path / "out" / "clip.mov")) == 5
    before, after = (
        b"".join(d for _, d in sound_of(p)) for p in (source, tmp_path / "out/clip.mov")
    )
    assert after == before
    assert frames.notes == []


def test_sound_that_is_refused_at_its_first_packet_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FFmpeg does with stereo PCM in MP4: it names the codec among those that MP4 holds."""
    film(tmp_path / "clip.mkv")
    real_open = av.open

    def refusing(file: Any, *arguments: Any, **options: Any) -> Any:
        container = real_open(file, *arguments, **options)
        if not isinstance(file, io.BytesIO) or "w" not in arguments:
            return container

        class Refusing:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None:
                container.close()

            def mux(self, packet: Any) -> None:
                raise av.error.ArgumentError(22, "Invalid argument")

            def __getattr__(self, name: str) -> Any:
                return getattr(container, name)

        return Refusing()

    monkeypatch.setattr(av, "open", refusing)
    frames = keep(tmp_path / "clip.mkv", tmp_path / "out.mp4")
    assert frames.notes == ["streams left out: 1 audio (aac)"]
    assert len(decode(tmp_path / "out.mp4")) == 25


@pytest.mark.parametrize("suffix", [".ts", ".MTS", ".m2ts"])
def test_transport_streams_are_videos(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"clip{suffix}"
    with av.open(source, "w", format="mpegts") as output:
        picture = output.add_stream("libx264", 25)
        picture.width, picture.height = 64, 48
        tone = output.add_stream("aac", 48000, layout="mono")
        for i in range(10):
            output.mux(picture.encode(av.VideoFrame.from_ndarray(scene(i), "rgb24")))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate = 48000
            output.mux(tone.encode(silence))
        output.mux([*picture.encode(None), *tone.encode(None)])
    targets = plan_outputs([tmp_path], tmp_path / "out")
    assert targets == {source: tmp_path / "out" / "clip.mp4"}
    frames = keep(source, targets[source])
    assert len(decode(targets[source])) == 10
    assert len(sound_of(targets[source])) == len(sound_of(source))
    assert frames.notes == []


def metadata_of(path: Path) -> dict[str, str]:
    with av.open(path) as video:
        return dict(video.metadata)


def test_date_place_and_title_are_kept(tmp_path: Path) -> None:
    """In the plain form, which most players read, if it has names for all of them."""
    clip(tmp_path / "plain.mp4", {"creation_time": DATE, "location": PLACE, "title": "Rain"})
    frames = keep(tmp_path / "plain.mp4", tmp_path / "out.mp4")
    found = metadata_of(tmp_path / "out.mp4")
    assert found["creation_time"].startswith(DATE)
    assert (found["location"], found["title"]) == (PLACE, "Rain")
    assert frames.notes == []
    assert form_for(tmp_path / "plain.mp4", 0, Fraction(10)).options == {}


def test_metadata_of_telephones_and_mkv_are_kept(tmp_path: Path) -> None:
    place = "com.apple.quicktime.location.ISO6709"
    facts = {"creation_time": DATE, place: PLACE, "com.apple.quicktime.model": "Phone"}
    clip(tmp_path / "phone.mov", facts, movflags="use_metadata_tags")
    clip(tmp_path / "clip.mkv", {"title": "Rain", "DIRECTOR": "Me"})
    for name in ("phone.mov", "clip.mkv"):
        frames = keep(tmp_path / name, tmp_path / "out" / f"{name}.mp4")
        assert frames.notes == []
    found = metadata_of(tmp_path / "out" / "phone.mov.mp4")
    assert found["creation_time"].startswith(DATE)
    assert (found[place], found["location"]) == (PLACE, PLACE)
    assert found["com.apple.quicktime.model"] == "Phone"
    found = metadata_of(tmp_path / "out" / "clip.mkv.mp4")
    assert (found["title"], found["DIRECTOR"]) == ("Rain", "Me")


def test_a_time_code_is_kept(tmp_path: Path) -> None:
    """It is a stream of its own in MOV and MP4."""
    clip(tmp_path / "clip.mov", {"timecode": "10:20:30:05"})
    assert keep(tmp_path / "clip.mov", tmp_path / "out.mp4").notes == []
    with av.open(tmp_path / "out.mp4") as video:
        assert video.streams.video[0].metadata["timecode"] == "10:20:30:5"


def test_metadata_that_one_form_refuses_takes_the_other(tmp_path: Path) -> None:
    clip(tmp_path / "clip.mkv", {"timecode": "10:20:30:05", "title": "Rain"})
    form = form_for(tmp_path / "clip.mkv", 0, Fraction(60_000))  # too many frames for a time code
    assert set(form.metadata.values()) == {"10:20:30:05", "Rain"}
    assert form.options == {"movflags": "use_metadata_tags"}
    assert form.notes == []


def test_metadata_that_no_form_takes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(tmp_path / "clip.mkv", {"title": "Rain"}, 2)
    monkeypatch.setattr(container, "_try", lambda *_: (set(), 0))
    frames = keep(tmp_path / "clip.mkv", tmp_path / "out.mp4")
    assert frames.notes == ["metadata left out: title", "chapters left out: 2"]
    assert "title" not in metadata_of(tmp_path / "out.mp4")


def test_metadata_that_is_no_utf8(tmp_path: Path) -> None:
    clip(tmp_path / "clip.avi", {"title": "Cafe"})
    data = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "clip.avi").write_bytes(data.replace(b"Cafe", b"Caf\xe9"))
    frames = keep(tmp_path / "clip.avi", tmp_path / "out.mp4")
    assert metadata_of(tmp_path / "out.mp4")["title"] == "Caf\ufffd"
    assert frames.notes == []


@pytest.mark.parametrize("start", [0, 3600])
def test_chapters_are_kept(tmp_path: Path, start: int) -> None:
    """Twice: those of the result are no stream that is left out. With a clock that starts late."""
    clip(tmp_path / "clip.mkv", {}, 2, start)
    for source, target in (("clip.mkv", "one.mp4"), ("one.mp4", "two.mp4")):
        assert keep(tmp_path / source, tmp_path / target).notes == []
        with av.open(tmp_path / target) as video:
            chapters = video.chapters()
        times = [(c["start"] * (c["time_base"] or 0), c["metadata"]["title"]) for c in chapters]
        assert times == [(0, "chapter 0"), (Fraction(1, 10), "chapter 1")]


def test_transparency_and_depth_are_noted(tmp_path: Path) -> None:
    film(tmp_path / "alpha.mov", EVEN[:2], video="qtrle", sound=None, pix_fmt="argb")
    film(tmp_path / "deep.mkv", EVEN[:2], video="ffv1", sound=None, pix_fmt="yuv420p10le")
    for name, note in (
        ("alpha.mov", "transparency left out"),
        ("deep.mkv", "10 bits reduced to 8"),
    ):
        assert keep(tmp_path / name, tmp_path / "out.mp4").notes == [note]


def test_streams_left_out_are_counted(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mkv", "w") as output:
        for _ in range(3):
            picture = output.add_stream("mpeg4", 25)
            picture.width, picture.height = 64, 48
        output.add_attachment("notes.txt", "text/plain", b"text")
        for picture in output.streams.video:
            frame = av.VideoFrame.from_ndarray(scene(0), "rgb24")
            output.mux([*picture.encode(frame), *picture.encode(None)])
    frames = keep(tmp_path / "a.mkv", tmp_path / "out.mp4")
    assert frames.notes == ["streams left out: 1 attachment, 2 video (mpeg4)"]
