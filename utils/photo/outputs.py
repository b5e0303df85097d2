"""Plan which file each input is derained into."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files import file_id, folded, is_same, list_files
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

    The old suffix is kept before the new one if two inputs differ only in it, or in upper and lower
    case: some drives ignore the case. A number is added if the names still differ only in case.

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
    folders: dict[Path, Path] = {}  # of the outputs
    known: set[object] = set()  # a file may be listed besides its folder, or spelt in two ways
    for path in (file for pattern in inputs for file in _expand(pattern)):
        if is_same(path, output):  # a second run would derain the first's results
            raise UserError(f"{output} is an input, too: choose another --output")
        found = [path]
        if path.is_dir():
            found = list_images(path, (*IMAGES, *VIDEOS), recursive, skip=output)
        for file in found:
            same = file_id(file), file_id(file.parent), folded(Path(file.name))
            if file not in folders and (same[0] is None or same not in known):
                inside = file.relative_to(path).parent if path.is_dir() else Path()
                folders[file] = output / inside
            known.add(same)
    targets = _name(folders, image_format)
    # Drives that ignore the case would make one file of two.
    results = {folded(target): target for target in targets.values()}
    pictures = [strip_of(target) for target in targets.values()] if strips else []
    if both := results.keys() & map(folded, pictures):
        raise UserError(f"{results[min(both)]} would be a result and a strip: leave out --strips")
    originals = {file_id(source): source for source in targets}
    originals.pop(None, None)  # missing ones
    moved = {t.with_suffix(".mov"): s for s, t in targets.items() if is_video(s)}
    for path in (*targets.values(), *pictures, *moved):
        original = originals.get(file_id(path))
        if original and moved.get(path) != original:  # that one is left to `video_writer`
            raise UserError(
                f"{output} contains the inputs, which are never overwritten: choose another "
                "--output"
            )
    return targets


def _name(folders: dict[Path, Path], image_format: str) -> dict[Path, Path]:
    """The file to write for each source, in its folder; no two become one on any drive."""
    suffixes = {source: _suffix(source, image_format) for source in folders}
    plain = {s: folder / (s.stem + suffixes[s]) for s, folder in folders.items()}
    users = Counter(map(folded, (*plain.values(), *set(folders.values()))))  # files and folders
    targets: dict[Path, Path] = {}
    taken: dict[str, Path] = {}
    for source, folder in folders.items():
        name = source.name if users[folded(plain[source])] > 1 else source.stem
        target, number = folder / (name + suffixes[source]), 1
        while (other := taken.setdefault(folded(target), source)) is not source:
            if folder / source.name == folders[other] / other.name:
                raise UserError(
                    "two inputs have the same name: derain them separately, with different "
                    "--output, or name the folder that contains both and add --recursive"
                )
            number += 1  # the names differ in case only
            target = folder / f"{name}-{number}{suffixes[source]}"
        targets[source] = target
    return targets


def numbered(sources: Iterable[Path]) -> list[list[Path]]:
    """Group images of a folder whose names differ in a number at the end only, in its order.

    Returns:
        All sources. Groups of one are no frames of a video.
    """
    groups: dict[object, list[tuple[int, Path]]] = {}
    for source in sources:
        name = re.sub("[0-9]+$", "", source.stem)
        number = source.stem[len(name) :]
        single = is_video(source) or not number
        key = source if single else (source.parent, name, source.suffix)
        groups.setdefault(key, []).append((int(number or 0), source))
    return [[source for _, source in sorted(group)] for group in groups.values()]


def existing_result(source: Path, target: Path) -> Path | None:
    """The output of a source if it exists; that of a video may have become a .mov."""
    if file_id(target) and target.is_file():
        return target
    other = target.with_suffix(".mov")  # see `utils.photo.video.video_writer`
    found = is_video(source) and file_id(other) and not is_same(other, source)
    return other if found else None


def left_out(inputs: Iterable[Path], output: Path, recursive: bool = False) -> list[str]:
    """Say what of the input folders is not derained: other kinds of file, folders, broken links.

    Args:
        inputs: as for `plan_outputs`.
        output: its files are no inputs.
        recursive: folders in the input folders are taken, but no links to folders.

    Returns:
        Sentences for the user; none if nothing but hidden files is left out.
    """
    listings = [list_files(path, recursive, output) for path in inputs if path.is_dir()]
    suffixes = [file.suffix.lower() for listing in listings for file in listing.files]
    others = [suffix for suffix in suffixes if suffix not in (*IMAGES, *VIDEOS)]
    folders = [folder.name for listing in listings for folder in listing.folders]
    unreadable = [entry for listing in listings for entry in listing.unreadable]
    found = []
    if others:
        kinds = ", ".join(sorted({suffix or "no suffix" for suffix in others}))
        found.append(f"not derained, of another kind: {len(others)} files ({kinds})")
    if folders:
        way = "name links as inputs" if recursive else "add --recursive, or name them as inputs"
        found.append(
            f"not derained: what is in {len(folders)} folders ({_first(sorted(folders))}); {way}"
        )
    if unreadable:
        found.append(f"cannot be read: {len(unreadable)} entries ({_first(unreadable)})")
    return found


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *["..."] * (len(names) > 5)])


def strip_of(target: Path) -> Path:
    """Path of the strip that shows an output beside its input."""
    return target.parent / "strips" / target.name


def _expand(path: Path) -> list[Path]:
    """The file or folder itself, or all that a pattern matches, sorted."""
    if file_id(path):
        return [path]
    hidden = path.name.startswith(".")  # some systems write `._NAME` next to an image
    try:
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except (ValueError, NotImplementedError, re.error) as error:
        raise UserError(f"no file and no pattern {path}: {error}") from None
    except OSError as error:
        raise UserError(f"no file or folder {path}: {error.strerror or error}") from None
    found = [match for match in matches if hidden or not match.name.startswith(".")]
    if not found:
        broken = " (it is a broken link)" * path.is_symlink()
        raise UserError(f"no file or folder {path}{broken}")
    return found


def _suffix(source: Path, image_format: str) -> str:
    if is_video(source):
        return ".mp4"
    if image_format == "same":
        return same_suffix(source.suffix)
    return FORMATS.get(image_format, ".png")
