"""From a command line to a config. The only room that knows tyro.

    SCRIPT [PRESET] [--flag value ...]

Every field of the config is a flag of the same name; --help lists them with the preset's defaults.
"""

import contextlib
import difflib
import io
import re
from typing import TypeVar

import tyro

from config import CONFIGS
from config.schema import Config, EvalConfig, ShowConfig
from utils.errors import UserError

T = TypeVar("T")

# Flags carry no section names, and a network or dataset keeps the type that its preset gave it.
MARKERS = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.AvoidSubcommands,
    tyro.conf.PositionalRequiredArgs,
)


# Old names of flags, which work for one release more.
RENAMED = {"--held-out": "--validation", "--start": "--init-from"}


def train_config(arguments: list[str]) -> Config:
    """`train.py [PRESET] [flags]`.

    Raises:
        UserError: unknown preset or flag, or a value that does not fit.
    """
    preset, flags = _preset([RENAMED.get(flag, flag) for flag in arguments])
    return _parse(Config, preset, flags, f"train.py {preset.name}")


def eval_config(arguments: list[str]) -> tuple[EvalConfig, Config]:
    """`eval.py [PRESET] [flags]`: the settings, and the preset they started from.

    Raises:
        UserError: as `train_config`.
    """
    preset, flags = _preset(arguments)
    default = EvalConfig(
        name=preset.name, data=preset.data, network=preset.network, machine=preset.machine
    )
    return _parse(EvalConfig, default, flags, f"eval.py {preset.name}"), preset


def show_config(arguments: list[str]) -> ShowConfig:
    """`show.py IMAGE|VIDEO|FOLDER ... [flags]`.

    Raises:
        UserError: no input is named; else as `train_config`.
    """
    settings = _parse(ShowConfig, None, arguments, "show.py")
    if not settings.inputs:
        raise UserError("no inputs: name images, videos or folders, as in python show.py photos/")
    return settings


def _preset(arguments: list[str]) -> tuple[Config, list[str]]:
    if not arguments or arguments[0].startswith("-"):
        return CONFIGS["synthetic"], arguments
    name = arguments[0]
    if name not in CONFIGS:
        close = difflib.get_close_matches(name, CONFIGS)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(CONFIGS)}"
        raise UserError(f"no preset {name!r}: {hint}")
    return CONFIGS[name], arguments[1:]


def _parse(kind: type[T], default: T | None, flags: list[str], program: str) -> T:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(kind, args=flags, prog=program, config=MARKERS)
            return tyro.cli(kind, default=default, args=flags, prog=program, config=MARKERS)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    message = _one_line(complaint.getvalue())
    if late := [flag for flag in flags if flag in CONFIGS]:
        message += f" ({late[0]} is a preset: it comes first)"
    raise UserError(f"{message}; see python {program} --help")


def _one_line(box: str) -> str:
    """The first paragraph of tyro's boxed message, and the flag it suggests."""
    rows = [re.sub(r"\s+", " ", row).strip(" │|") for row in box.splitlines()[1:-1]]
    parts = " ".join(rows).split("─", 1)
    suggestion = re.search(r"Perhaps you meant: (--\S+)", parts[-1])
    hint = f" (did you mean {suggestion[1]}?)" if suggestion else ""
    return parts[0].strip().rstrip(".") + hint
