"""What a file tells without being decoded: its size in pixels, its length and its date."""

import os
import struct

HEAD = 1 << 10  # bytes; the sizes of nearly all files lie there
LONG_HEAD = 1 << 18  # for a JPEG with a thumbnail or a colour profile
PNG = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
JPEG_END = b"\xff\xd9"
NO_FRAMES = (0xC4, 0xC8, 0xCC)  # of the markers C0 to CF, those that begin no frame


def length_and_date(path: str) -> tuple[int, int]:
    """Length of a file in bytes and the second it was last changed.

    Copies keep whole seconds; many lose the rest.

    Raises:
        OSError: it cannot be read.
    """
    status = os.stat(path)  # noqa: PTH116 Path takes longer than the system
    return status.st_size, int(status.st_mtime)


def size_in_header(path: str) -> tuple[int, int] | None:
    """Height and width of a complete PNG or JPEG file with 8 bits per channel.

    Reads the beginning and the end of the file. None for every other file, also for an unreadable
    one: only decoding tells more.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            head = os.read(file, HEAD)
            os.lseek(file, -len(PNG_END), os.SEEK_END)
            end = os.read(file, len(PNG_END))
            if head.startswith(PNG):
                return _size_of_png(head) if end == PNG_END else None
            if not end.endswith(JPEG_END):
                return None
            if (size := _size_of_jpeg(head)) is None:
                os.lseek(file, 0, os.SEEK_SET)
                size = _size_of_jpeg(os.read(file, LONG_HEAD))
            return size
        finally:
            os.close(file)
    except (OSError, struct.error):
        return None


def _size_of_png(head: bytes) -> tuple[int, int] | None:
    """Of PNG's third edition, 11.2.1: width, height and bit depth begin the first chunk, IHDR."""
    kind, width, height, depth = struct.unpack_from(">4sIIB", head, 12)
    return (height, width) if kind == b"IHDR" and depth <= 8 else None


def _size_of_jpeg(head: bytes) -> tuple[int, int] | None:
    """Of ITU-T T.81, B.1.1 and B.2.2: segments of a marker and a length, up to that of a frame."""
    place = 2
    while head.startswith(b"\xff\xd8") and place + 9 <= len(head) and head[place] == 0xFF:
        marker, length = struct.unpack_from(">xBH", head, place)
        if 0xC0 <= marker <= 0xCF and marker not in NO_FRAMES:
            depth, height, width = struct.unpack_from(">BHH", head, place + 4)
            return (height, width) if depth == 8 else None
        place += 2 + length
    return None
