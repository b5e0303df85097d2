"""Which file each input is derained into, on drives of every kind; what stops a run."""

import errno
import os
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import show
from config.schema import Folders, ShowConfig
from data.open import refuse_output
from eval import folder_names
from models import Derainer
from report.page import check_photo_report
from tools import convert_checkpoint, score
from utils.errors import UserError, WriteError
from utils.files import file_id, folded, is_inside, list_files, replacing, write_text, writing
from utils.image import Pixels, read_image, write_image
from utils.photo.outputs import existing_result, left_out, plan_outputs
from utils.photo.record import unfinished
from utils.runtime import REPOSITORY

Picture = Callable[..., Pixels]

LONG = "雨" * 83 + ".png"  # 253 bytes; most drives allow 255


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# --- names --------------------------------------------------------------------------------------


def test_no_two_results_differ_in_case_only(tmp_path: Path) -> None:
    """Also folders, and letters with accents in two forms."""
    folder, output = tmp_path / "in", tmp_path / "out"
    names = {"IMG_1.JPG", "img_1.png", "b.png", "B.png", "é.png", "É.jpg", "straße.png"}
    names |= {unicodedata.normalize("NFD", "é.png"), "STRASSE.png", "x/a.png", "X/a.png"}
    touch(*(folder / name for name in names))
    present = list_files(folder, recursive=True).files  # some drives made one of two
    targets = plan_outputs([folder], output, recursive=True)
    assert set(targets) == set(present)
    assert len({folded(target) for target in targets.values()}) == len(present)
    assert targets[folder / "IMG_1.JPG"] == output / "IMG_1.JPG.png"
    assert plan_outputs([folder / "b.png"], output)[folder / "b.png"] == output / "b.png"


def test_no_result_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.jpg", tmp_path / "in" / "A.png" / "b.png")
    targets = plan_outputs([tmp_path / "in"], tmp_path / "out", recursive=True)
    assert set(targets.values()) == {tmp_path / "out/a.jpg.png", tmp_path / "out/A.png/b.png"}


letters = st.text("aAbB.éÉß", min_size=1, max_size=4).filter(lambda text: text[0] != ".")


@settings(max_examples=60, deadline=None)
@given(st.sets(st.builds("{}{}".format, letters, st.sampled_from([".png", ".JPG", ".jpg"]))))
def test_every_input_has_its_own_result(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    touch(folder / "0.png", *(folder / name for name in names))
    sources = list_files(folder).files
    for kind in ("png", "same"):
        targets = plan_outputs([folder], folder / "out", kind, strips=True)
        assert set(targets) == set(sources)
        assert len({folded(target) for target in targets.values()}) == len(sources)


def test_one_file_spelt_in_two_ways_is_derained_once(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.png")
    inputs = [tmp_path / "in", tmp_path / "in" / ".." / "in" / "a.png", tmp_path / "in" / "*.png"]
    assert list(plan_outputs(inputs, tmp_path / "out").values()) == [tmp_path / "out" / "a.png"]


def test_inputs_are_known_by_the_system_not_by_their_path(tmp_path: Path) -> None:
    """A link to the folder of the inputs, and results that would be other inputs."""
    touch(tmp_path / "in" / "a.png", tmp_path / "in" / "clip.mkv", tmp_path / "out" / "clip.mov")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(UserError, match="is an input, too"):
        plan_outputs([tmp_path / "in"], tmp_path / "link")
    with pytest.raises(UserError, match="contains the inputs"):
        plan_outputs([tmp_path / "in" / "a.png"], tmp_path / "link")
    touch(tmp_path / "out" / "b.png")  # the result of one run is the input of the next
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "out" / "b.png")
    inputs = [tmp_path / "in" / "c.png", tmp_path / "elsewhere" / "b.png"]
    touch(inputs[1])
    with pytest.raises(UserError, match="contains the inputs"):
        plan_outputs(inputs, tmp_path / "out")
    (tmp_path / "in" / "d.mov").symlink_to(tmp_path / "out" / "clip.mov")
    inputs = [tmp_path / "in" / "clip.mkv", tmp_path / "in" / "d.mov"]
    with pytest.raises(UserError, match="contains the inputs"):  # the sound may need a .mov
        plan_outputs(inputs, tmp_path / "out")


def test_reports_and_strips_spare_inputs_and_results(tmp_path: Path) -> None:
    touch(tmp_path / "out" / "report" / "0.png", tmp_path / "out" / "strips" / "rain-1.png")
    source = tmp_path / "out" / "." / "report" / "0.png"
    with pytest.raises(UserError, match="contains the input"):
        check_photo_report(tmp_path / "out" / ".." / "out", [source])
    target = tmp_path / "new" / "REPORT" / "0.png"
    with pytest.raises(UserError, match="leave out --report"):
        check_photo_report(tmp_path / "new", [], [target])
    check_photo_report(tmp_path / "new", [source], [tmp_path / "new" / "reports" / "0.png"])
    data = Folders("mine", train_folder=None, test_folder=tmp_path / "out" / "strips")
    with pytest.raises(UserError, match="never overwritten"):
        refuse_output(data, tmp_path / "out")
    refuse_output(data, tmp_path / "new")


def test_tools_never_overwrite_their_input(tmp_path: Path, picture: Picture) -> None:
    touch(tmp_path / "latest_net")
    with pytest.raises(UserError, match="is the input"):
        convert_checkpoint.main([str(tmp_path / "latest_net"), str(tmp_path / "." / "latest_net")])
    for name in ("a", "b"):
        write_image(tmp_path / name / "1.png", picture())
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    with pytest.raises(UserError, match="is the input"):
        score.main([*folders, "--csv", str(tmp_path / "b" / "1.png")])
    assert len(read_image(tmp_path / "b" / "1.png"))
    names = folder_names([Path("runs/A/best.pt"), Path("runs/a/best.pt")])
    assert names == ["runs-A-best", "runs-a-best-2"]


@pytest.fixture
def blind(tmp_path: Path) -> Iterator[Path]:
    """A folder on a drive that ignores upper and lower case."""
    image, mount = tmp_path / "image", tmp_path / "drive"
    mount.mkdir()
    touch(tmp_path / "case")
    if (tmp_path / "CASE").exists():
        yield mount
        return
    image.write_bytes(bytes(20 * 2**20))
    for create, attach in (
        ("mkfs.ntfs -q -F IMAGE", "lowntfs-3g -o ignore_case IMAGE DRIVE"),
        ("mkfs.vfat IMAGE", "mount -o loop IMAGE DRIVE"),
    ):
        words = f"{create} {attach}".replace("IMAGE", str(image)).replace("DRIVE", str(mount))
        first = len(create.split())
        try:
            for command in (words.split()[:first], words.split()[first:]):
                subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        yield mount
        subprocess.run(["umount", str(mount)], check=True)
        return
    pytest.skip("no drive that ignores the case: needs root, and ntfs-3g or vfat")


def test_a_drive_that_ignores_the_case(tmp_path: Path, blind: Path, picture: Picture) -> None:
    write_image(blind / "photos" / "a.png", picture())
    before = (blind / "photos" / "a.png").read_bytes()
    with pytest.raises(UserError, match="contains the inputs"):
        plan_outputs([blind / "photos" / "a.png"], blind / "Photos")
    with pytest.raises(UserError, match="is an input, too"):
        plan_outputs([blind / "photos"], blind / "Photos")
    assert len(plan_outputs([blind / "photos", blind / "PHOTOS" / "A.PNG"], tmp_path / "o")) == 1
    assert is_inside(blind / "PHOTOS" / "a.png", blind / "photos")
    pictures = {}
    for seed, name in enumerate(("IMG_1.JPG", "img_1.png", "b.png", "B.png", "x/a.png", "X/a.png")):
        write_image(tmp_path / "in" / name, picture(seed=seed))
        pictures[tmp_path / "in" / name] = read_image(tmp_path / "in" / name)
    targets = plan_outputs([tmp_path / "in"], blind / "out", recursive=True, strips=True)
    for source, target in targets.items():
        write_image(target, pictures[source])
    assert len({file_id(target) for target in targets.values()}) == len(pictures)
    for source, target in targets.items():
        assert (read_image(target) == pictures[source]).all()
    assert (blind / "photos" / "a.png").read_bytes() == before


# --- what is left out ---------------------------------------------------------------------------


def test_links_are_named(tmp_path: Path, picture: Picture) -> None:
    """They may form circles, or lead nowhere."""
    folder = tmp_path / "in"
    touch(folder / "one" / "a.png", folder / ".hidden" / "b.png", tmp_path / "other" / "c.png")
    (folder / "one" / "circle").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "other")
    (folder / "gone.png").symlink_to(tmp_path / "nothing")
    (folder / "d.png").symlink_to(tmp_path / "other" / "c.png")
    found = list_files(folder, recursive=True)
    assert found.files == [folder / "d.png", folder / "one" / "a.png"]
    assert left_out([folder], tmp_path / "out", recursive=True) == [
        "not derained: what is in 2 folders (circle, linked); name links as inputs",
        f"cannot be read: 1 entries ({folder}/gone.png: a broken link)",
    ]
    assert list_files(folder).unreadable == [f"{folder}/gone.png: a broken link"]
    with pytest.raises(UserError, match=r"gone\.png \(it is a broken link\)"):
        plan_outputs([folder / "gone.png"], tmp_path / "out")
    assert list(plan_outputs([folder / "linked"], tmp_path / "out")) == [folder / "linked/c.png"]


def test_a_folder_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "in" / "a.png", tmp_path / "in" / "closed" / "b.png")
    entries = os.scandir

    def scandir(folder: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        if folder.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return entries(folder)

    monkeypatch.setattr("utils.files.os.scandir", scandir)
    found = list_files(tmp_path / "in", recursive=True)
    assert found.files == [tmp_path / "in" / "a.png"]
    assert found.unreadable == [f"{tmp_path}/in/closed: Permission denied"]
    with pytest.raises(UserError, match=r"cannot read .*closed: Permission denied"):
        list_files(tmp_path / "in" / "closed")


@pytest.mark.parametrize("pattern", ["**x", "[", "nothing*", "[]]", "a**/b", "x" * 300, "*" * 300])
def test_patterns_that_match_nothing_are_one_line(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=r"^no file[^\n]*$"):
        plan_outputs([tmp_path / pattern], tmp_path / "out")


# --- errors of the system -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ENOSPC", "EROFS", "EIO", "EDQUOT"])
def test_errors_of_the_drive(name: str) -> None:
    with pytest.raises(WriteError, match=r"cannot write a\.png: "), writing(Path("a.png")):
        raise OSError(getattr(errno, name), name)


@pytest.mark.parametrize(
    "name",
    ["ENAMETOOLONG", "EINVAL", "EILSEQ", "EISDIR", "ENOTDIR", "EACCES", "EFBIG", "EEXIST", "EPERM"],
)
def test_errors_of_one_file(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot write a\.png: ") as caught, writing(Path("a.png")):
        raise OSError(getattr(errno, name), name)
    assert not isinstance(caught.value, WriteError)


def test_the_longest_name(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 255), "text")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["text"]
    worked = False
    with pytest.raises(UserError, match="File name too long"), replacing(tmp_path / ("x" * 256)):
        worked = True
    assert not worked  # refused before the work
    for wrong in (Path("/"), tmp_path):  # no names of files
        with pytest.raises(UserError, match="cannot write"):
            write_text(wrong, "text")
    assert len(list(tmp_path.iterdir())) == 1


def test_one_bad_name_costs_one_file(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too long with the suffix that tells two files apart, or a folder where the file should be."""
    folder, output = tmp_path / "in", tmp_path / "out"
    for name in (LONG, LONG.replace(".png", ".webp"), "a.png", "z.png", "0" + LONG):
        write_image(folder / name, picture())
    (output / "a.png").mkdir(parents=True)
    command = [str(folder), "--output", str(output), "--skip-existing"]
    for done in (2, 0):
        with pytest.raises(UserError, match=f"skipped 3 of {3 + done} files"):
            show.main(command)
        shown = capsys.readouterr()
        assert shown.err.count("File name too long") == 2
        assert "a.png: Is a directory" in shown.err
    written = {file.name for file in output.iterdir() if file.is_file()}
    assert written == {"0" + LONG, "z.png", "derained.jsonl"}
    assert existing_result(folder / LONG, output / ("x" * 300)) is None


def test_a_file_that_killed_a_run_comes_last_in_the_next(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stop every run at the same place: whatever stopped the first is not known."""
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "in" / name, picture())
    output = tmp_path / "out"
    command = [str(tmp_path / "in"), "--output", str(output), "--skip-existing"]
    derain, deadly = show.derain_photograph, "a.png"

    def die(
        network: Derainer, source: Path, target: Path, settings: ShowConfig
    ) -> tuple[Path, float, int]:
        if source.name == deadly:
            raise RuntimeError("killed")
        return derain(network, source, target, settings)

    monkeypatch.setattr(show, "derain_photograph", die)
    for done in (set(), {"b.png", "c.png"}):
        with pytest.raises(RuntimeError, match="killed"):
            show.main(command)
        assert {file.name for file in output.glob("*.png")} == done
    deadly = ""
    show.main(command)
    assert len(list(output.glob("*.png"))) == 3
    assert not unfinished(output)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_leaves_no_half_written_file(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name, None)
    if number is None or sys.platform == "win32":
        pytest.skip("a system without this signal")
    script = (
        "import signal, sys, time; from pathlib import Path; from utils import errors, files\n"
        # A shell starts what it runs in the background with SIGINT ignored, nohup with SIGHUP.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "def main(arguments):\n"
        "    with files.replacing(Path(arguments[0])): time.sleep(100)\n"
        "errors.run_command(main)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.png")]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(500):
            if list(tmp_path.iterdir()):
                break
            time.sleep(0.02)
        assert list(tmp_path.iterdir())
        os.kill(process.pid, number)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert len(stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
