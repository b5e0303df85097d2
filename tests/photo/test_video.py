"""Videos: what a change of the picture keeps. Files are made and inspected with PyAV."""

import gc
import re
import resource
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.codec.context import Flags
from films import EVEN, UNKNOWN, decode, film, keep, scene, sound_of
from numpy.typing import NDArray

import show
from config.networks import JDNetConfig
from models import Derainer, JDNet
from utils import checkpoint
from utils.errors import UserError
from utils.image import hstack, read_image, write_image
from utils.photo import record
from utils.photo.neighbours import FRAMES
from utils.photo.outputs import existing_result
from utils.photo.video import Frames, video_writer

UNEVEN = [0, 40, 80, 200, 220, 240, 500, 501, 700, *range(733, 1000, 33)]
BT601, BT709 = 6, 1  # AVColorSpace
LIMITED, FULL = 1, 2  # AVColorRange


def plane(frame: av.VideoFrame, index: int) -> NDArray[Any]:
    return np.asarray(frame.reformat(format="yuv444p").to_ndarray()[index], int)


@pytest.mark.parametrize(
    ("name", "video", "sound", "suffix"),
    [
        ("clip.mp4", "libx264", "aac", ".mp4"),
        ("clip.mkv", "libx264", "libopus", ".mp4"),
        ("clip.mov", "mpeg4", "pcm_s16le", ".mov"),
        ("phone.mov", "mpeg4", "pcm_mulaw", ".mov"),
        ("silent.webm", "libvpx-vp9", None, ".mp4"),
    ],
)
@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_time_stamps_and_sound_are_kept(
    tmp_path: Path, name: str, video: str, sound: str | None, suffix: str, times: Sequence[int]
) -> None:
    source, target = tmp_path / name, tmp_path / "out" / "clip.mp4"
    film(source, times, video=video, sound=sound)
    assert not existing_result(source, target)
    frames = keep(source, target)
    assert existing_result(source, target)
    target = target.with_suffix(suffix)
    assert [file.name for file in target.parent.iterdir()] == [target.name]
    assert [round(1000 * frame.time) for frame in decode(target)] == list(times)
    assert frames.notes == []
    with av.open(source) as before, av.open(target) as after:
        assert after.streams.video[0].codec_context.name == "h264"
        assert before.duration is not None
        assert after.duration == pytest.approx(before.duration, abs=21_000)  # microseconds
    if sound:
        assert len(sound_of(source)) > 40
        assert sound_of(target) == sound_of(source)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_the_last_frame_stays_as_long(tmp_path: Path, name: str) -> None:
    """Also with a variable rate, and if the source has B frames."""
    film(tmp_path / name, [0, 40, 80, 300, 340, 1000], sound=None, last=1500)
    frames = keep(tmp_path / name, tmp_path / "out.mp4")
    assert frames.notes == []
    with av.open(tmp_path / "out.mp4") as container:
        assert container.duration == 2_500_000


def test_avi_with_b_frames(tmp_path: Path) -> None:
    """AVI stores the order of decoding only."""
    film(tmp_path / "clip.avi", sound="libmp3lame", time_base=Fraction(1, 25))
    keep(tmp_path / "clip.avi", tmp_path / "out.mp4")
    shown = decode(tmp_path / "out.mp4")
    assert np.allclose(np.diff([frame.time for frame in shown]), 0.04)
    for i, pixels in enumerate(Frames(tmp_path / "out.mp4")):
        assert np.abs(pixels.astype(int) - scene(i)).mean() < 8


def test_sound_and_picture_alternate_in_the_file(tmp_path: Path) -> None:
    film(tmp_path / "clip.mp4", range(0, 30_000, 1000))
    keep(tmp_path / "clip.mp4", tmp_path / "out.mp4")
    with av.open(tmp_path / "out.mp4") as container:
        packets = [(p.pos or 0, p.stream.type) for p in container.demux() if p.size]
    kinds = [kind for _, kind in sorted(packets)]
    assert kinds.index("audio") < 3
    assert kinds[-20:] == ["video"] * 20


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(60000, 1001), Fraction(240)])
def test_rates_are_kept(tmp_path: Path, rate: Fraction) -> None:
    frames = [scene(i) for i in range(12)]
    with av.open(tmp_path / "clip.mp4", "w") as output:
        picture = output.add_stream("mpeg4", rate)
        picture.width, picture.height = 64, 48
        for pixels in frames:
            output.mux(picture.encode(av.VideoFrame.from_ndarray(pixels)))
        output.mux(picture.encode(None))
    keep(tmp_path / "clip.mp4", tmp_path / "out.mp4")
    with av.open(tmp_path / "out.mp4") as container:
        assert container.streams.video[0].average_rate == rate
        assert container.streams.video[0].frames == 12


@pytest.mark.parametrize(
    ("matrix", "reach", "red", "blue"),
    [
        (BT709, LIMITED, 0.2126, 0.0722),
        (BT709, FULL, 0.2126, 0.0722),
        (BT601, LIMITED, 0.299, 0.114),
        (BT601, FULL, 0.299, 0.114),
        (UNKNOWN, 0, 0.299, 0.114),
    ],
)
def test_colours_are_read_and_written_by_the_same_matrix(
    tmp_path: Path, matrix: int, reach: int, red: float, blue: float
) -> None:
    """Grey levels of decoded frames differ little, and RGB follows the formula of the standard."""
    source, target = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    film(source, EVEN[:5], colours=(matrix, reach))
    keep(source, target)
    pairs = list(zip(decode(source), decode(target), strict=True))
    for before, after in pairs:
        assert (after.colorspace, after.color_range) == (before.colorspace, before.color_range)
        differences = [np.abs(plane(after, i) - plane(before, i)) for i in range(3)]
        assert np.mean(differences) < 1
        assert np.percentile(differences, 99) <= 6
    pixels, frame = next(iter(Frames(source))), pairs[0][0]
    y, u, v = (plane(frame, i) for i in range(3))
    y, u, v = (
        (y / 255, (u - 128) / 255, (v - 128) / 255)
        if reach == FULL
        else ((y - 16) / 219, (u - 128) / 224, (v - 128) / 224)
    )
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    expected = 255 * np.stack([r, g, b], 2).clip(0, 1)
    assert np.abs(pixels - expected).mean() < 1.5


def test_ten_bits_and_rgb_become_eight_bits(tmp_path: Path) -> None:
    for name, layout in [("deep", "yuv420p10le"), ("rgb", "bgr0")]:
        source = tmp_path / f"{name}.mkv"
        film(source, EVEN[:5], video="ffv1", sound=None, pix_fmt=layout)
        keep(source, tmp_path / "out.mp4")
        for i, pixels in enumerate(Frames(tmp_path / "out.mp4")):
            assert np.abs(pixels.astype(int) - scene(i)).mean() < 5
        (first, *_) = decode(tmp_path / "out.mp4")
        assert first.format.name == "yuv420p"
        assert first.colorspace == (BT709 if name == "rgb" else UNKNOWN)


@pytest.mark.parametrize("video", ["png", "qtrle"])
def test_writing_changes_no_frame_of_the_source(tmp_path: Path, video: str) -> None:
    """Neither the pixels nor the RGB frame that the decoder of qtrle changes into the next."""
    source, target = tmp_path / "clip.mov", tmp_path / "out.mp4"
    film(source, video=video, sound=None, pix_fmt="rgb24")
    frames = Frames(source)
    with video_writer(target, frames) as (write, _):
        for i, pixels in enumerate(frames):
            write(255 - pixels)
            assert np.array_equal(pixels, scene(i))
    for i, pixels in enumerate(Frames(target)):
        assert np.abs(pixels.astype(int) - (255 - scene(i))).mean() < 8


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_turned_videos_become_upright(tmp_path: Path, degrees: int, flip: bool) -> None:
    source, target = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    film(source, EVEN[:2], rotation=(degrees, flip), sample_aspect_ratio=Fraction(4, 3))
    keep(source, target)
    upright = np.rot90(scene(0), degrees // 90)
    upright = upright[:, ::-1] if flip else upright
    shown = next(iter(Frames(target)))
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 8
    (first, *_) = decode(target)
    assert first.side_data.get("DISPLAYMATRIX") is None
    with av.open(target) as container:
        aspect = container.streams.video[0].sample_aspect_ratio
    assert aspect == (Fraction(3, 4) if degrees % 180 else Fraction(4, 3))


def test_odd_sides_are_padded(tmp_path: Path) -> None:
    odd = [scene(i, 47, 63) for i in range(2)]
    film(tmp_path / "clip.mkv", EVEN[:2], odd, sound=None, video="ffv1", pix_fmt="bgr0")
    frames = keep(tmp_path / "clip.mkv", tmp_path / "out.mp4")
    assert frames.notes == ["odd sides padded to even ones"]
    pixels = next(iter(Frames(tmp_path / "out.mp4"))).astype(int)
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels[:47, :63] - odd[0]).mean() < 5
    assert np.abs(pixels[47] - pixels[46]).mean() < 5


def damage(path: Path, numbers: Sequence[int]) -> None:
    """Overwrite some packets of the picture, but not their length in bytes."""
    with av.open(path) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        spans = [(p.pos or 0, p.size) for p in packets]
    data = bytearray(path.read_bytes())
    for start, size in (spans[number] for number in numbers):
        data[start + 4 : start + size] = bytes(size - 4)
    path.write_bytes(data)


def test_broken_frames_are_skipped(tmp_path: Path) -> None:
    source, target = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    film(source, max_b_frames=0)
    damage(source, [10, 11, 17])
    frames = keep(source, target)
    assert frames.notes == ["broken frames left out: 3"]
    kept = [time for i, time in enumerate(EVEN) if i not in (10, 11, 17)]
    assert [round(1000 * frame.time) for frame in decode(target)] == kept
    assert sound_of(target) == sound_of(source)


def test_a_truncated_video_is_written_as_far_as_it_goes(tmp_path: Path) -> None:
    source, target = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    film(source, options={"movflags": "faststart"})
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 2 // 5])
    frames = keep(source, target)
    *_, ends = frames.notes
    assert ends.startswith("the picture ends after 0.")
    assert ends.endswith(" of 1.0 seconds")
    assert 5 <= len(decode(target)) < 15
    assert sound_of(target)


def test_frames_of_another_size_are_left_out(tmp_path: Path) -> None:
    """As in two MPEG files that were joined. Their time stamps begin anew."""
    both = tmp_path / "both.mpg"
    for side in (48, 32):
        frames = [scene(i, side) for i in range(25)]
        part = tmp_path / "part.mpg"
        film(part, EVEN, frames, "mpeg2video", "mp2", time_base=Fraction(1, 25))
        with both.open("ab") as joined:
            joined.write(part.read_bytes())
    notes = keep(both, tmp_path / "out.mp4").notes
    assert "frames of another size than the first left out: 25" in notes
    assert {(f.width, f.height) for f in decode(tmp_path / "out.mp4")} == {(64, 48)}
    assert sound_of(tmp_path / "out.mp4")


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with av.open(tmp_path / "sound.mp4", "w") as output:
        tone = output.add_stream("aac", 48000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
        samples.sample_rate = 48000
        output.mux([*tone.encode(samples), *tone.encode(None)])
    for name in ("text.mp4", "sound.mp4", "missing.mp4"):
        with pytest.raises(UserError, match=rf"{name}: .*not a video"):
            Frames(tmp_path / name)
    film(tmp_path / "clip.mp4")
    damage(tmp_path / "clip.mp4", range(25))
    film(tmp_path / "ycgco.mp4", colorspace=8)
    for name in ("clip.mp4", "ycgco.mp4"):
        with pytest.raises(UserError, match=name):
            keep(tmp_path / name, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_other_streams_are_left_out(tmp_path: Path) -> None:
    """Sound that no container takes, and a second picture."""
    film(tmp_path / "clip.avi", video="mpeg4", sound="adpcm_ms", time_base=Fraction(1, 25))
    frames = keep(tmp_path / "clip.avi", tmp_path / "out.mp4")
    assert frames.notes == ["streams left out: 1 audio (adpcm_ms)"]
    with av.open(tmp_path / "out.mp4") as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_video_is_written_whole_or_not_at_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    film(source)
    target.write_bytes(b"before")
    frames = Frames(source)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def interrupt() -> None:
        with video_writer(target, frames) as (write, _):
            for pixels in frames:
                write(pixels)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(UserError, match=r"out\.mp4: File too large"):
            keep(source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name for file in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}
    assert target.read_bytes() == b"before"
    assert capfd.readouterr() == ("", "")


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    """Sound that MP4 cannot hold changes the suffix, perhaps to that of the input."""
    film(tmp_path / "clip.mov", sound="pcm_mulaw")
    before = (tmp_path / "clip.mov").read_bytes()
    with pytest.raises(UserError, match=r"clip\.mov .*--output"):
        keep(tmp_path / "clip.mov", tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mov").read_bytes() == before
    assert not existing_result(tmp_path / "clip.mov", tmp_path / "clip.mp4")


def test_frames_are_not_kept_in_memory(tmp_path: Path) -> None:
    source = tmp_path / "clip.mp4"
    film(source, rotation=(90,))
    gc.collect()
    gc.disable()
    try:
        keep(source, tmp_path / "out.mp4")
        assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) < 4
    finally:
        gc.enable()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """An untrained small network that changes the colours much."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"units": 1, "channels": 16}
    network = JDNet(JDNetConfig(**arguments))
    with torch.no_grad():
        network.tail.get_parameter("bias").copy_(torch.tensor([0.2, -0.2, 0.2]))
    path = tmp_path / "weights.pt"
    state = {"network": "jdnet", "arguments": arguments, "state_dict": network.state_dict()}
    checkpoint.save(path, state)
    return path


@pytest.mark.slow
def test_show_derains_videos(
    tmp_path: Path, weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Frames are derained like images; strips have the sound as well; broken files are skipped."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    times = [0, 40, 200, 800]
    rainy = [scene(10 * i, 47) for i in range(4)]
    source = folder / "clip.MKV"
    film(source, times, rainy, video="ffv1", pix_fmt="bgr0")
    (folder / "broken.mp4").write_text("no video")
    with pytest.raises(UserError, match="1 of 2 files"):
        show.main([str(folder), "--weights", str(weights), "--output", str(output), "--strips"])
    printed = capfd.readouterr()
    assert re.search(r"skipped: cannot read .*broken.mp4", printed.err)
    assert "derained 1 of 2 with" in printed.out
    assert printed.out.count("clip.MKV: odd sides padded to even ones") == 1
    assert "moov" not in printed.err
    assert {file.name for file in output.iterdir()} == {"clip.mp4", "strips", "derained.jsonl"}

    derain = Derainer(weights)
    derained = [derain(pixels) for pixels in rainy]
    strips = [hstack(*pair) for pair in zip(rainy, derained, strict=True)]
    assert np.abs(derained[0].astype(int) - rainy[0]).mean() > 10
    for folder, expected in ((output, derained), (output / "strips", strips)):
        result = folder / "clip.mp4"
        for pixels, target in zip(Frames(result), expected, strict=True):
            assert np.abs(pixels[:47].astype(int) - target).mean() < 5
        assert [round(1000 * frame.time) for frame in decode(result)] == times
        assert sound_of(result) == sound_of(source)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_show_derains_numbered_images(tmp_path: Path, weights: Path, count: int) -> None:
    """They are frames of a video. Those that cannot be read are skipped; strips are written."""
    folder, output = tmp_path / "in", tmp_path / "out"
    rainy = [scene(i) for i in range(4)]
    for i, pixels in enumerate(rainy):
        write_image(folder / f"{i + 8}.png", pixels)
    (folder / "10.png").write_bytes(b"no image")
    write_image(folder / "other.png", rainy[0])
    flags = ["--weights", str(weights), "--output", str(output), "--strips", "--report"]
    with pytest.raises(UserError, match="1 of 5 files"):
        show.main([str(folder), *flags, "--frames", str(count)])
    results, _ = record.read(output)
    assert {result.target.name: result.frames for result in results} == {
        "8.png": count,
        "9.png": count,
        "11.png": count,
        "other.png": 1,
    }
    film = show.Film(Derainer(weights), "in", count)
    frames = [frame for i in (0, 1, 3) for frame in film.add(rainy[i], i)] + film.finish()
    for frame, name in zip(frames, ("8.png", "9.png", "11.png"), strict=True):
        assert np.array_equal(read_image(output / name), frame.derained)
        strip = hstack(rainy[frame.tag], frame.derained)
        assert np.array_equal(read_image(output / "strips" / name), strip)
    page = (output / "report" / "index.html").read_text()
    assert ("3 frames together" in page) == (count == 3)


@pytest.mark.slow
def test_show_uses_neighbours_in_videos(tmp_path: Path, weights: Path) -> None:
    """By default; the frames keep their times, which vary, with what belongs to them."""
    source = tmp_path / "clip.mkv"
    times, shown = [0, 40, 200, 240, 300, 800, 840, 900, 1000], [0, 1, 2, 2, 3, 4, 5, 6, 7]
    rainy = [scene(i) for i in shown]
    film(source, times, rainy, video="ffv1", pix_fmt="bgr0")
    for flags, count in (([], FRAMES), (["--frames", "1"], 1)):
        output = tmp_path / str(count)
        show.main([str(source), "--weights", str(weights), "--output", str(output), *flags])
        result = output / "clip.mp4"
        assert [round(1000 * frame.time) for frame in decode(result)] == times
        assert sound_of(result) == sound_of(source)
        together = show.Film(Derainer(weights), "clip", count)
        frames = [frame for pixels in rainy for frame in together.add(pixels, None)]
        for pixels, frame in zip(Frames(result), frames + together.finish(), strict=True):
            assert np.abs(pixels.astype(int) - frame.derained).mean() < 5
        assert [result.frames for result in record.read(output)[0]] == [count]


def test_clips_joined_byte_by_byte_follow_each_other(tmp_path: Path) -> None:
    """The clock of MPEG starts again in the second clip."""
    film(tmp_path / "one.mpg", EVEN, video="mpeg2video", sound="mp2", time_base=Fraction(1, 25))
    (tmp_path / "two.mpg").write_bytes(2 * (tmp_path / "one.mpg").read_bytes())
    frames = keep(tmp_path / "two.mpg", tmp_path / "two.mp4")
    times = [1000 * frame.time for frame in decode(tmp_path / "two.mp4")]
    assert len(times) == 50
    assert np.diff(times) == pytest.approx(40, abs=1)
    assert frames.notes == ["time stamps that start again, continued: 1"]
    assert sound_of(tmp_path / "two.mp4")[-1][0] > 1900


@pytest.mark.parametrize("name", ["late.mkv", "late.mov"])
def test_a_late_clock_starts_at_zero(tmp_path: Path, name: str) -> None:
    """As in segments of a long recording."""
    hour = 3_600_000
    film(tmp_path / name, [hour + time for time in EVEN], sound=None)
    frames = keep(tmp_path / name, tmp_path / "late.mp4")
    assert [round(1000 * frame.time) for frame in decode(tmp_path / "late.mp4")] == EVEN
    with av.open(tmp_path / "late.mp4") as video:
        assert video.duration == pytest.approx(1e6, abs=2e4)
    assert frames.notes == []


def test_interlaced_videos_are_noted(tmp_path: Path) -> None:
    flags = Flags.interlaced_dct | Flags.interlaced_me
    base = Fraction(1, 25)
    film(tmp_path / "tv.mpg", video="mpeg2video", sound=None, time_base=base, flags=flags)
    frames = keep(tmp_path / "tv.mpg", tmp_path / "tv.mp4")
    assert frames.notes == ["interlaced: deinterlace it first"]


def test_sound_keeps_its_language(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mkv", "w") as output:
        picture = output.add_stream("libx264", 25)
        picture.width, picture.height = 64, 48
        for language in ("deu", "fra"):
            output.add_stream("aac", 48000, layout="mono").metadata["language"] = language
        frame = av.VideoFrame.from_ndarray(scene(0), "rgb24")
        output.mux([*picture.encode(frame), *picture.encode(None)])
        for tone in output.streams.audio:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate = 48000
            output.mux([*tone.encode(silence), *tone.encode(None)])
    keep(tmp_path / "a.mkv", tmp_path / "a.mp4")
    with av.open(tmp_path / "a.mp4") as video:
        assert [s.metadata["language"] for s in video.streams.audio] == ["deu", "fra"]
