"""The kinds of photograph that are read, by their suffixes, and the packages that some need."""

import importlib
from pathlib import Path
from types import ModuleType

from utils.errors import UserError
from utils.photo.encode import FORMATS

# Pillow reads these without help. Kinds of one picture only: see `utils.photo.decode`.
PILLOW = (
    *(".apng", ".avif", ".gif", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx", ".mpo", ".pbm"),
    *(".pcx", ".pgm", ".pnm", ".ppm", ".psd", ".ras", ".sgi", ".tga"),
)
HEIF = (".heic", ".heif", ".hif")
JPEG_XL = (".jxl",)
RAW = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq"),
    *(".k25", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw"),
    *(".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
SUFFIXES = (*FORMATS, *PILLOW, *HEIF, *JPEG_XL, *RAW)


def same_suffix(suffix: str) -> str:
    """The suffix that a result has when it should be of the same kind as its source.

    It is that of the source if this kind is written, and else that of the nearest kind.
    """
    nearest = {".mpo": ".jpg"}  # a JPEG with further pictures behind it
    return suffix if suffix.lower() in FORMATS else nearest.get(suffix.lower(), ".png")


def package_for(path: Path, kind: str, module: str, name: str) -> ModuleType:
    """Import a package that only one kind of photograph needs.

    Args:
        path: of the photograph.
        kind: its kind, for the message.
        module: to import.
        name: of the package, for `pip install`.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"cannot read {path}: {kind} needs a package: pip install {name}") from None
