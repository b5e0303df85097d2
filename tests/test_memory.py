"""Free memory, in made-up trees of /proc and /sys, and in real limits."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils import memory
from utils.runtime import REPOSITORY

MIB = 2**20
PRINT = "from utils.memory import available; print(available())"


def tree(root: Path, **files: str) -> Path:
    """Write files below `root`; `__` stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 24 GiB free, and no limits."""
    return tree(tmp_path, proc__meminfo=f"MemTotal: 9\nMemAvailable:  {24 * 1024 * 1024} kB\n")


def group(root: Path, folder: str, **files: object) -> None:
    for name, text in files.items():
        path = root / folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_a_machine_without_groups(machine: Path) -> None:
    assert memory.available(machine) == 24 * 1024 * MIB


def test_nested_groups_of_version_2(machine: Path) -> None:
    """The tightest of the groups counts; `max` is no limit; what was read from files is free."""
    tree(
        machine,
        proc__self__cgroup="0::/a/b/c\n",
        proc__self__mountinfo="30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n",
    )
    top = "sys/fs/cgroup"
    group(machine, f"{top}/a/b/c", memory__max="max", memory__current=50 * MIB)
    group(machine, f"{top}/a/b", memory__max=1500 * MIB, memory__current=600 * MIB)
    group(machine, f"{top}/a", memory__max=9000 * MIB, memory__current=700 * MIB)
    group(machine, "sys/fs", memory__max=1, memory__current=0)  # outside the tree of groups
    assert memory.available(machine) == 900 * MIB
    group(machine, f"{top}/a/b", memory__stat=f"anon 7\ninactive_file {100 * MIB}")
    assert memory.available(machine) == 1000 * MIB
    group(machine, f"{top}/a/b/c", memory__high=70 * MIB)
    assert memory.available(machine) == 20 * MIB
    group(machine, f"{top}/a", memory__max=0)
    assert memory.available(machine) == 0


@pytest.mark.parametrize("inside", ["", "/inner"])
def test_a_container_of_version_1_sees_its_own_group_only(machine: Path, inside: str) -> None:
    tree(
        machine,
        proc__self__cgroup=f"9:name=systemd:/\n4:cpu,memory:/docker/12{inside}\n0::/\n",
        proc__self__mountinfo=(
            "31 23 0:27 /docker/12 /sys/fs/cgroup/cpu,memory ro - cgroup cgroup rw,cpu,memory\n"
            "32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        ),
    )
    top = "sys/fs/cgroup/cpu,memory"
    group(machine, top, memory__limit_in_bytes=1536 * MIB, memory__usage_in_bytes=536 * MIB)
    assert memory.available(machine) == 1000 * MIB
    unlimited = {"memory__limit_in_bytes": 2**63 - 4096, "memory__usage_in_bytes": 1}
    group(machine, f"{top}{inside}" if inside else "elsewhere", **unlimited)
    assert memory.available(machine) == 1000 * MIB


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert 0 < memory.available(tmp_path) < 2**60  # half of the machine, by sysconf
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert memory.available(tmp_path) == memory.UNKNOWN


@pytest.mark.parametrize("name", ["AS", "DATA"])
def test_the_limits_of_the_process(name: str) -> None:
    pytest.importorskip("resource", reason="a system without limits of processes")
    limit = 700 * MIB
    script = f"import resource as r; r.setrlimit(r.RLIMIT_{name}, ({limit}, {limit})); {PRINT}"
    assert 0 < _printed(script) < limit


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A real control group with 200 MiB."""
    limit, group = 200 * MIB, None
    for own in memory._groups(Path("/")):
        path = own / f"test-{os.getpid()}"
        try:
            path.mkdir()
            group = path
            names = ("memory.limit_in_bytes", "memory.max")
            next(path / n for n in names if (path / n).exists()).write_text(str(limit))
            break
        except (OSError, StopIteration):
            if path.is_dir():
                path.rmdir()
            group = None
    if group is None:
        pytest.skip("no control group can be made: needs Linux and root")
    yield group
    group.rmdir()


def test_a_real_control_group(small_group: Path) -> None:
    join = f"import os; open({str(small_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    assert 100 * MIB < _printed(f"{join}; {PRINT}") < 200 * MIB


def _printed(script: str) -> int:
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return int(result.stdout)
