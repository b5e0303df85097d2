"""Errors of the user, reported in one line."""

import io
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn


class UserError(Exception):
    """A mistake of the user. The message says what was expected, what came, and what to do."""


class WriteError(UserError):
    """The drive is full, read-only or failing: other files cannot be written, either."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the script; if it saved its work, the message says how to go on.

    Args:
        message: one line.
        signal: the signal received.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def run_command(main: Callable[[list[str]], object]) -> NoReturn:
    """Run a script's `main(arguments)`; a `UserError` becomes one line and exit status 2.

    SIGTERM and SIGHUP end it like Ctrl-C, so that no half-written file is left.
    """
    for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that are not UTF-8
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(_complain(error, 2))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))
    except BrokenPipeError:  # the reading program, for example `head`, has ended
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # no permission, disk full, a file where a folder is needed
        sys.exit(_complain(error, 2))
    sys.exit(0)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}", number)


def _complain(message: object, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status
