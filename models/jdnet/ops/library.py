"""The C++ operators of this folder, compiled on first use with the local compiler.

The library is cached in the user's cache folder. Its name is a hash of the sources, the compiler,
the flags and the processor, so each combination is compiled once. A user without a writable cache
folder compiles it in every process. It runs on torch's OpenMP threads.
"""

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("pairwise_attention.cpp", "scale_fusion.cpp")
)
HEADER = Path(__file__).with_name("lanes.h")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp")


@cache
def load() -> ctypes.CDLL | None:
    """The compiled library. If it cannot be built: None, and one line on stderr."""
    compiler = os.environ.get("CXX", "c++")
    try:
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout
        texts = (file.read_text() for file in (*SOURCES, HEADER))
        identity = "\n".join([version, *texts, *FLAGS, _processor()])
        name = f"operators-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
        with suppress(OSError, RuntimeError):  # no home, not writable, or not executable
            cached = _cache_folder() / name
            if not cached.exists():
                _compile(compiler, cached)
            return ctypes.CDLL(str(cached))
        # A folder of its own: in one that others can write to, the library might be another's.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _compile(compiler, Path(folder) / name)
            return ctypes.CDLL(str(Path(folder) / name))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        first = str(reason).strip().splitlines()[0]
        print(f"note: slower PyTorch operators are used ({compiler}: {first})", file=sys.stderr)
        return None


def _compile(compiler: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        subprocess.run(
            [compiler, *FLAGS, "-fPIC", "-shared", "-o", str(built), *map(str, SOURCES)],
            capture_output=True,
            text=True,
            check=True,
        )
        os.replace(built, target)  # atomic, in case another process compiles at the same time


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jdnet"


def _processor() -> str:
    """What -march=native depends on: several machines may share the cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), platform.processor())
