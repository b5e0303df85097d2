"""Stop a training run in an orderly way on Ctrl-C and SIGTERM."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A context that notes Ctrl-C and SIGTERM, so that the loop can save and stop.

    A second Ctrl-C interrupts at once. Outside the main thread, which alone receives signals, it
    does nothing.

    Attributes:
        received: the signal, None if there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._handlers: list[Any] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = [signal.signal(number, self._note) for number in SIGNALS]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in zip(SIGNALS, self._handlers, strict=False):
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
