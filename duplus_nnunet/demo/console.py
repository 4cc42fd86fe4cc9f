"""What the demonstration shows while it runs: its steps, each with the time so far, and one line that keeps moving.

In: steps and short texts. Out: lines on a stream; on a terminal the last one is rewritten in place.
"""

import time
from typing import TextIO


class Console:
    """Announces steps on a stream.

    Args:
        stream: Where to write.
        steps: How many steps there will be.
    """

    def __init__(self, stream: TextIO, steps: int) -> None:
        self._stream = stream
        self._steps = steps
        self._step = 0
        self._started = time.monotonic()
        self._live = False

    def start_step(self, text: str) -> None:
        """Announce the next step."""
        self._step += 1
        self.say(f"[{self.elapsed()}] step {self._step} of {self._steps}: {text}")

    def say(self, text: str) -> None:
        """Write lines that stay."""
        self._write(f"{self._erase()}{text}\n")
        self._live = False

    def show(self, text: str) -> None:
        """Rewrite the moving line; does nothing where the stream is not a terminal."""
        if self._stream.isatty():
            self._write(f"{self._erase()}[{self.elapsed()}]   {text}")
            self._live = True

    def elapsed(self) -> str:
        """Return the time since the start as minutes and seconds."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes:2d}:{seconds:02d}"

    def _erase(self) -> str:
        return "\r\x1b[K" if self._live else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
