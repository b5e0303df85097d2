"""Parse a command line into a config or into the options of a tool. Only this module imports tyro.

    SCRIPT [PRESET] [--flag value ...]

Every field is a flag of the same name; --help lists them with their defaults. `description` is the
docstring of the script, which --help prints before the flags.
"""

import contextlib
import difflib
import io
import re
from dataclasses import fields, replace
from functools import partial
from typing import TypeVar

import tyro

from config import CONFIGS
from config.checks import flag
from config.schema import Config, EvalConfig, Folders, ShowConfig, Synthetic
from utils.errors import UserError

T = TypeVar("T")

# Flags have no section prefix, and the network and data keep the types that the preset gave them.
# Fields without a default are positional; --help and errors refer to them by field name.
MARKERS = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.AvoidSubcommands,
    tyro.conf.PositionalRequiredArgs,
    tyro.conf.PositionalMetavarFromFieldName,
)

FOLDERS = {flag(field.name) for field in fields(Folders)}


def train_config(
    arguments: list[str], program: str = "python train.py", description: str | None = None
) -> Config:
    """Parse `train.py [PRESET] [flags]`, or another program with the same presets and flags.

    Raises:
        UserError: unknown preset or flag, or an invalid value.
    """
    preset, flags = _preset(arguments)
    config = _parse(Config, preset, flags, f"{program} {preset.name}", _with_presets(description))
    return replace(config, data=_own_folders(config.data, preset.data))


def _own_folders(data: Folders | Synthetic, default: Folders | Synthetic) -> Folders | Synthetic:
    """Drop the preset's test set if only the user's own training set exists."""
    if not isinstance(data, Folders) or not isinstance(default, Folders):
        return data
    own = data.train_folder != default.train_folder and data.test_folder == default.test_folder
    missing = data.test_folder is not None and not data.test_folder.exists()
    return replace(data, test_folder=None) if own and missing else data


def eval_config(arguments: list[str], description: str | None = None) -> tuple[EvalConfig, Config]:
    """Parse `eval.py [PRESET] [flags]`; return the settings and the preset they are based on.

    Raises:
        UserError: as in `train_config`.
    """
    preset, flags = _preset(arguments)
    default = EvalConfig(
        name=preset.name, data=preset.data, network=preset.network, machine=preset.machine
    )
    program = f"python eval.py {preset.name}"
    return _parse(EvalConfig, default, flags, program, _with_presets(description)), preset


def _with_presets(description: str | None) -> str | None:
    return description and f"{description}\nPresets: {', '.join(CONFIGS)}.\n"


def show_config(arguments: list[str], description: str | None = None) -> ShowConfig:
    """Parse `show.py IMAGE|VIDEO|FOLDER ... [flags]`.

    Raises:
        UserError: no inputs, an unknown flag, or an invalid value.
    """
    settings = _parse(ShowConfig, None, arguments, "python show.py", description)
    if not settings.inputs:
        raise UserError(
            "no inputs: show.py removes the rain from photographs and videos. For example, "
            "`python show.py photo.jpg` writes derained/photo.png; --help lists all flags"
        )
    return settings


def tool_options(kind: type[T], arguments: list[str], program: str, description: str | None) -> T:
    """Parse the options of a tool into a dataclass; fields without a default are positional.

    Raises:
        UserError: unknown flag, an invalid value, or no value where the default has some.
    """
    options = _parse(kind, None, arguments, program, description)
    for name, value in vars(options).items():
        if value == () and getattr(kind, name, ()):  # empty, but the default is not
            raise UserError(f"{flag(name)} needs at least one value; see {program} --help")
    return options


def _preset(arguments: list[str]) -> tuple[Config, list[str]]:
    if not arguments or arguments[0].startswith("-"):
        return CONFIGS["synthetic"], arguments
    name = arguments[0]
    if name not in CONFIGS:
        close = difflib.get_close_matches(name, CONFIGS)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(CONFIGS)}"
        raise UserError(f"no preset {name!r}: {hint}")
    return CONFIGS[name], arguments[1:]


def _parse(
    kind: type[T], default: T | None, flags: list[str], program: str, description: str | None
) -> T:
    if description and {"-h", "--help"} & set(flags):
        print(description)  # tyro would rewrap its lines
    stderr = io.StringIO()
    parse = partial(tyro.cli, kind, args=flags, prog=program, description="", config=MARKERS)
    try:
        with contextlib.redirect_stderr(stderr):
            return parse() if default is None else parse(default=default)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    message = _one_line(stderr.getvalue())
    if late := [argument for argument in flags if argument in CONFIGS]:
        message += f" ({late[0]} is a preset: it comes first)"
    elif {argument.partition("=")[0] for argument in flags} & FOLDERS and "Unrecognized" in message:
        message += " (these need a preset in front, for example rain100l)"
    raise UserError(f"{message}; see {program} --help")


def _one_line(box: str) -> str:
    """The first paragraph of tyro's boxed error message, and the flag it suggests.

    Parsed from the box because tyro 1.0 exposes structured errors only in a private module.
    """
    rows = [re.sub(r"\s+", " ", row).strip(" │|") for row in box.splitlines()[1:-1]]
    parts = " ".join(rows).split("─", 1)
    suggestion = re.search(r"Perhaps you meant: (--\S+)", parts[-1])
    hint = f" (did you mean {suggestion[1]}?)" if suggestion else ""
    return parts[0].strip().rstrip(".") + hint
