"""Systems without Unix's own modules, and users without a home."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from models.jdnet.ops import library
from training import resume
from utils.errors import UserError
from utils.image import Pixels, write_image
from utils.runtime import REPOSITORY

# As on Windows, and for a user that the system does not know.
HIDE = """
import os, runpy, sys
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("sysconf", "getuid", "geteuid", "fork", "getloadavg", "sched_getaffinity", "killpg"):
    if hasattr(os, name):
        delattr(os, name)
sys.path.insert(0, os.getcwd())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments: object) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    result = subprocess.run(
        [sys.executable, "-c", HIDE, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**environment, "OMP_NUM_THREADS": "1", "CXX": "no-compiler"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_scripts_run_without_unix_and_without_a_home(
    tmp_path: Path, picture: Callable[..., Pixels]
) -> None:
    data = ("--train-pairs", 2, "--test-pairs", 1, "--image-size", 32)
    recipe = ("--steps", 2, "--batch-size", 1, "--patch-size", 16, "--units", 1, "--workers", 0)
    folder = tmp_path / "run"
    assert "test 2: " in run("train.py", *data, *recipe, "--device", "cpu", "--run", folder)
    plan = run("train.py", *data, *recipe, "--device", "cpu", "--dry-run")
    assert "not known on this system" in plan
    weights = ("--weights", folder / "best.pt", "--output", tmp_path / "out")
    assert "1 pairs" in run("eval.py", "synthetic", *weights, *data[2:])
    write_image(tmp_path / "a.png", picture())
    assert "derained 1 of 1" in run("show.py", tmp_path / "a.png", *weights)


def test_a_drive_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(lock: FileLock) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(UserError, match="cannot lock files"), resume._locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize("home", ["none", "a file", "read-only"])
def test_the_operators_need_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """They are compiled for this process only."""
    if library.load() is None:
        pytest.skip("no compiler")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home == "none":

        def unknown() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", unknown)
    else:
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        (tmp_path / ".cache").write_text("no folder")
        if home == "read-only":
            monkeypatch.setattr(Path, "home", lambda: Path("/proc"))  # even for root
    seen: list[Path] = []

    def compile_quickly(compiler: str, target: Path) -> None:
        """Copy the library that was compiled before."""
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(compiled)
        seen.append(target)

    compiled = Path(_loaded()).read_bytes()
    monkeypatch.setattr(library, "_compile", compile_quickly)
    library.load.cache_clear()
    try:
        assert library.load() is not None
    finally:
        library.load.cache_clear()
    assert len(seen) == 1
    assert not seen[0].exists()


def _loaded() -> str:
    loaded = library.load()
    assert loaded is not None
    return loaded._name
