"""Atomic file writes: a file is written completely or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import WriteError


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file for writing and move it to `path` when it is complete.

    Missing folders are created. The data is flushed to disk before the move. After an error the
    temporary file is deleted and an existing file at `path` is unchanged.

    Args:
        path: the file to write.
        previous: where to move an existing file at `path` first; None replaces it.

    Raises:
        WriteError: the file cannot be written, for example because the disk is full.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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
    """Turn an error of the operating system into a `WriteError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; characters that UTF-8 cannot encode are escaped."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))
