"""Plan which file each input is derained into."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError
from utils.image import list_images
from utils.photo.kinds import SUFFIXES as IMAGES
from utils.photo.kinds import same_suffix
from utils.photo.video import SUFFIXES as VIDEOS
from utils.photo.video import is_video

FORMATS = {"png": ".png", "jpg": ".jpg", "tiff": ".tif", "webp": ".webp"}


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
        image_format: a key of `FORMATS`, or "same" for the suffix of the input, or of the
            nearest kind that is written; videos become MP4.
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


def left_out(inputs: Iterable[Path], output: Path, recursive: bool = False) -> list[str]:
    """Say what of the input folders is not derained: other kinds of file, and folders.

    Args:
        inputs: as for `plan_outputs`.
        output: its files are no inputs.
        recursive: folders in the input folders are taken, but no links to folders.

    Returns:
        Sentences for the user; none if nothing but hidden files is left out.
    """
    files, folders = [], []
    for folder in (path for path in inputs if path.is_dir()):
        for path in folder.rglob("*") if recursive else folder.iterdir():
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if hidden or output.resolve() in (path.resolve(), *path.resolve().parents):
                continue
            if path.is_dir():
                folders += [path] if path.is_symlink() or not recursive else []
            elif path.suffix.lower() not in (*IMAGES, *VIDEOS):
                files.append(path.suffix.lower() or "no suffix")
    found = []
    if files:
        kinds = ", ".join(sorted(set(files)))
        found.append(f"not derained, of another kind: {len(files)} files ({kinds})")
    if folders:
        names = ", ".join(sorted(path.name for path in folders)[:5])
        more = ", ..." if len(folders) > 5 else ""
        way = "name links as inputs" if recursive else "add --recursive, or name them as inputs"
        found.append(f"not derained: what is in {len(folders)} folders ({names}{more}); {way}")
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
    try:
        matches = sorted(Path(path.anchor).glob(str(pattern)))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"no pattern {path}: {error}") from None
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
    if image_format == "same":
        return same_suffix(source.suffix)
    return FORMATS.get(image_format, ".png")
