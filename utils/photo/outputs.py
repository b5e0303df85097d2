"""Plan which file each input is derained into."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from utils.errors import UserError
from utils.image import SUFFIXES as IMAGES
from utils.image import list_images
from utils.photo.video import SUFFIXES as VIDEOS
from utils.photo.video import is_video

FORMATS = {"png": ".png", "jpg": ".jpg", "tiff": ".tif", "webp": ".webp"}

# Photographs in kinds that are not read. A folder's user expects them to be derained, too.
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw")


def plan_outputs(
    inputs: Iterable[Path],
    output: Path,
    image_format: str = "png",
    recursive: bool = False,
    strips: bool = False,
) -> dict[Path, Path]:
    """Map each input to its output: same name, with the suffix of the format.

    The old suffix is kept before the new one if two inputs differ only in it.

    Args:
        inputs: files, folders, or patterns such as `photos/*.jpg`.
        output: folder of the outputs.
        image_format: a key of `FORMATS`, or "same" for the suffix of the input; videos become MP4.
        recursive: also take the files in folders of folders, and keep the tree below `output`.
        strips: `strip_of` each target is written, too.

    Raises:
        UserError: an input is missing, or a target would overwrite an input or another target.
    """
    folders: dict[Path, Path] = {}  # of the outputs; a file may be listed besides its folder
    for path in (file for pattern in inputs for file in _expand(pattern)):
        if path.is_dir():
            if path.resolve() == output.resolve():  # a second run would derain the first's results
                raise UserError(f"{output} is an input, too: choose another --output")
            for file in _files(path, output, recursive):
                folders.setdefault(file, output / file.relative_to(path).parent)
        else:
            folders.setdefault(path, output)
    names = {source: source.stem + _suffix(source, image_format) for source in folders}
    users = Counter((folders[source], name) for source, name in names.items())
    targets = {}
    for source, folder in folders.items():
        clash = users[folder, names[source]] > 1
        name = source.name + _suffix(source, image_format) if clash else names[source]
        targets[source] = folder / name
    if len(set(targets.values())) < len(targets):
        raise UserError(
            "two inputs have the same name: derain them separately, with different --output, or "
            "name the folder that contains both and add --recursive"
        )
    pictures = {strip_of(target) for target in targets.values()} if strips else set()
    if both := pictures & set(targets.values()):
        raise UserError(f"{min(both)} would be a result and a strip: leave out --strips")
    written = {path.resolve() for path in (*targets.values(), *pictures)}
    if written & {source.resolve() for source in folders}:
        raise UserError(
            f"{output} contains the inputs, which are never overwritten: choose another --output"
        )
    return targets


def existing_result(source: Path, target: Path) -> Path | None:
    """The output of a source if it exists; that of a video may have become a .mov."""
    if target.exists():
        return target
    other = target.with_suffix(".mov")  # see `utils.photo.video.video_writer`
    found = is_video(source) and other.exists() and not other.samefile(source)
    return other if found else None


def unread_photographs(inputs: Iterable[Path], recursive: bool = False) -> list[Path]:
    """List the photographs in input folders that are of a kind this code does not read."""
    folders = [path for path in inputs if path.is_dir()]
    found = []
    for folder in folders:
        with suppress(UserError):  # there is none
            found += list_images(folder, UNREAD, recursive)
    return found


def strip_of(target: Path) -> Path:
    """Path of the strip that shows an output beside its input."""
    return target.parent / "strips" / target.name


def _expand(path: Path) -> list[Path]:
    """The file or folder itself, or all that a pattern matches, sorted."""
    if path.exists():
        return [path]
    pattern = path.relative_to(path.anchor)
    hidden = path.name.startswith(".")  # some systems write `._NAME` next to an image
    matches = sorted(Path(path.anchor).glob(str(pattern)))
    found = [match for match in matches if hidden or not match.name.startswith(".")]
    if not found:
        raise UserError(f"no file or folder {path}")
    return found


def _files(folder: Path, output: Path, recursive: bool) -> list[Path]:
    files = list_images(folder, (*IMAGES, *VIDEOS), recursive)
    inside = folder.resolve() in output.resolve().parents  # outputs of an earlier run
    return [f for f in files if not (inside and output.resolve() in f.resolve().parents)]


def _suffix(source: Path, image_format: str) -> str:
    if is_video(source):
        return ".mp4"
    if image_format == "same" and source.suffix.lower() in IMAGES:
        return source.suffix
    return FORMATS.get(image_format, ".png")
