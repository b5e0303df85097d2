"""Files: written completely or not at all, compared by what the system says, listed in order."""

import csv
import errno
import io
import os
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from utils.errors import UserError, WriteError

# Errors of the drive, or of the whole process: the next file would fail, too.
OF_THE_DRIVE = {
    getattr(errno, name, None)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EIO", "ENODEV", "ENXIO", "ESTALE", "ENOTCONN"),
        *("ETIMEDOUT", "EHOSTDOWN", "EMFILE", "ENFILE"),
    )
}


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file for writing and move it to `path` when it is complete.

    Missing folders are created. The data is flushed to disk before the move. After an error the
    temporary file is deleted and an existing file at `path` is unchanged.

    Args:
        path: the file to write.
        previous: where to move an existing file at `path` first; None replaces it.

    Raises:
        UserError, WriteError: see `writing`.
    """
    # Short: `path` may have the longest name that the drive allows.
    name = f"{os.getpid()}-{zlib.crc32(os.fsencode(path.name)):08x}.partial"
    partial = path.parent / name
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.lstat()  # before the work: the system refuses some names
        try:
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if previous and path.exists():
                os.replace(path, previous)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one line that names `path`.

    Raises:
        WriteError: the drive is full, read-only or failing: no other file can be written.
        UserError: this file cannot be written, for example because its name is too long.
    """
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        kind = WriteError if getattr(error, "errno", None) in OF_THE_DRIVE else UserError
        reason = getattr(error, "strerror", None) or error
        raise kind(f"cannot write {path}: {reason}") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; characters that UTF-8 cannot encode are escaped."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def file_id(path: Path) -> tuple[int, int] | None:
    """What the system knows a file or folder by, however its path is spelt.

    None if it does not exist. Links are followed.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # also a name that the system refuses
        return None
    return status.st_dev, status.st_ino


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one existing file or folder."""
    return (identity := file_id(one)) is not None and identity == file_id(other)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder or in a folder of it, by its own path or by that of links."""
    real = Path(os.path.realpath(path))
    return any(is_same(parent, folder) for parent in (*path.absolute().parents, *real.parents))


def folded(path: Path) -> str:
    """The same text for all paths that lead to one file on a drive that ignores the case.

    Such drives also take a letter with an accent and the letter followed by the accent for one.
    """
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", str(path)).casefold())


def refuse_overwriting(source: Path, target: Path) -> None:
    """Refuse to write a file that is the input.

    Raises:
        UserError: both are one file.
    """
    if is_same(source, target):
        raise UserError(f"{target} is the input, which is never overwritten: choose another target")


class Listing(NamedTuple):
    """The contents of a folder."""

    files: list[Path]  # sorted
    folders: list[Path]  # that were not entered: links to folders, or all folders
    unreadable: list[str]  # broken links, and folders that cannot be opened, with the reason


def list_files(folder: Path, recursive: bool = False, skip: Path | None = None) -> Listing:
    """List the files of a folder. Hidden ones are left out.

    Args:
        folder: the folder.
        recursive: also list the files of all folders in it. Links to folders are not followed:
            they may form circles or lead anywhere.
        skip: a folder to leave out.

    Raises:
        UserError: the folder cannot be read.
    """
    files, folders, unreadable = list_names(folder, recursive, skip)
    return Listing(list(map(Path, files)), list(map(Path, folders)), unreadable)


def list_names(
    folder: Path, recursive: bool = False, skip: Path | None = None
) -> tuple[list[str], list[str], list[str]]:
    """The fields of `list_files` as text: a million paths take too long."""
    files: list[str] = []
    folders: list[str] = []
    unreadable: list[str] = []
    waiting = [str(folder)]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as found:
                entries = list(found)
        except OSError as error:
            if current == str(folder):
                raise UserError(f"cannot read {folder}: {error.strerror or error}") from None
            unreadable.append(f"{current}: {error.strerror or error}")
            continue
        for entry in entries:
            if entry.name.startswith("."):  # some systems write `._NAME` next to an image
                continue
            try:
                if entry.is_dir():
                    if skip is None or not is_same(Path(entry.path), skip):
                        enters = recursive and not entry.is_symlink()
                        (waiting if enters else folders).append(entry.path)
                elif entry.is_file():
                    files.append(entry.path)
                elif entry.is_symlink():
                    unreadable.append(f"{entry.path}: a broken link")
            except OSError as error:
                unreadable.append(f"{entry.path}: {error.strerror or error}")
    for paths in (files, folders):
        paths.sort(key=lambda path: path.replace(os.sep, "\0"))  # a folder stays together
    return files, folders, sorted(unreadable)
