"""The memory that this process may still use: of the machine, its control groups, its limits."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

UNKNOWN = 4 * 2**30  # bytes, assumed where the system says nothing


def available(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still use, at least 0.

    The least of the available memory of the machine, of what every control group of the process
    leaves (containers and batch systems set such limits, the machine's memory does not show them),
    and of what the process's own limits (`ulimit -v`, `ulimit -d`) leave.

    Args:
        root: where `proc` and `sys` lie.
    """
    amounts = [*_of_machine(root), *_of_groups(root), *_of_limits(root)]
    return max(0, min(amounts, default=UNKNOWN))


def _of_machine(root: Path) -> Iterator[int]:
    found = _numbers(root / "proc/meminfo").get("MemAvailable:")
    if found is not None:
        yield 1024 * found
        return
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _of_groups(root: Path) -> Iterator[int]:
    for group in _groups(root):
        limits = [
            limit
            for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
            if (limit := _number(group / name)) is not None  # "max" is no limit
        ]
        used = _number(group / "memory.current")  # version 2
        used = _number(group / "memory.usage_in_bytes") if used is None else used
        if limits and used is not None:
            table = _numbers(group / "memory.stat")
            # Of files that were read and can be read again.
            cache = table.get("total_inactive_file", table.get("inactive_file", 0))
            yield min(limits) - used + cache


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the memory control groups of this process, and of all groups around them."""
    own: dict[str, str] = {}  # path of the process's group by controller; "" for version 2
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    for line in _lines(root / "proc/self/mountinfo"):
        place, _, kind = line.partition(" - ")
        mounted, point = place.split()[3:5]
        version, *_, options = kind.split()
        first = version == "cgroup" and "memory" in options.split(",")
        own_path = own.get("memory" if first else "")
        if own_path is None or not (first or version == "cgroup2"):
            continue
        inside = os.path.relpath(own_path, mounted)
        top = root / point.lstrip("/")
        group = top if inside.startswith("..") else top / inside  # a container sees its own only
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _of_limits(root: Path) -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    used = _numbers(root / "proc/self/status")
    for limit, name in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - 1024 * used.get(name, 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def _numbers(path: Path) -> dict[str, int]:
    """A table of names and numbers, one a line."""
    rows = (line.split() for line in _lines(path))
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
