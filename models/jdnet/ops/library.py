"""The C++ of this folder, compiled on first use by the machine's own compiler.

The library is kept in the user's cache under a name made of the sources, the compiler and the
processor, so each is compiled once. Threads are torch's own OpenMP threads.
"""

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("pairwise_attention.cpp", "scale_fusion.cpp")
)
HEADER = Path(__file__).with_name("lanes.h")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp")


@cache
def load() -> ctypes.CDLL | None:
    """The compiled library; None, and one line on stderr, where it cannot be had."""
    compiler = os.environ.get("CXX", "c++")
    try:
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout
        texts = (file.read_text() for file in (*SOURCES, HEADER))
        identity = "\n".join([version, *texts, *FLAGS, _processor()])
        name = f"operators-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
        cached = _cache_folder() / name
        if not cached.exists():
            _compile(compiler, cached)
        return ctypes.CDLL(str(cached))
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
        os.replace(built, target)  # whole or not at all, whoever else compiles meanwhile


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jdnet"


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), platform.processor())
