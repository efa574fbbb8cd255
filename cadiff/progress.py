"""Progress that people can follow: a bar in a terminal, lines in a log, nothing when asked to be quiet."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import SupportsFloat

SILENCE = 8.0  # seconds after which `speaking` says that the work goes on
_lock = threading.Lock()
_last_shown = 0.0  # time.monotonic() of the latest line


def is_quiet() -> bool:
    return os.environ.get("CADIFF_QUIET", "") not in ("", "0")


def say(line: str) -> None:
    """A line for people, beside a progress or without one."""
    _print(line)


def be_quiet() -> None:
    """``--quiet``: no progress from this process and those that it starts."""
    os.environ["CADIFF_QUIET"] = "1"


def duration(seconds: float) -> str:
    """``48 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts to ``total``; shows rate, time left and the latest figures (for training the parts of the loss).

    In a terminal one line is redrawn; elsewhere a line is printed at most every ``log_seconds``, and always at the
    start and the end. ``CADIFF_QUIET=1`` silences both.
    """

    def __init__(self, title: str, total: int, done: int = 0, log_seconds: float = 5.0) -> None:
        self.title, self.total, self.done, self.start_done = title, total, done, done
        self.every = 0.2 if sys.stderr.isatty() else log_seconds
        self.started = time.monotonic()
        self.shown = -1e9
        self._show({})

    def advance(self, count: int = 1, figures: Mapping[str, SupportsFloat] | None = None) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.shown >= self.every or self.done >= self.total:
            self._show(figures or {})

    def _show(self, figures: Mapping[str, SupportsFloat]) -> None:
        self.shown = time.monotonic()
        elapsed = self.shown - self.started
        rate = (self.done - self.start_done) / elapsed if elapsed > 0.05 else 0.0
        left = f", {duration((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        numbers = "".join(f" {name} {float(value):.4g}" for name, value in figures.items())
        text = f"{self.title} {self.done}/{self.total}"
        text += f" ({rate:.2f}/s{left}){numbers}" if rate else numbers
        filled = int(24 * self.done / max(self.total, 1))
        _print(text, f"[{'#' * filled}{'.' * (24 - filled)}] ", self.done >= self.total)


def _print(text: str, bar: str = "", complete: bool = True) -> None:
    """A line of a log; in a terminal the current line, ended when complete."""
    global _last_shown
    if is_quiet():
        return
    with _lock:
        _last_shown = time.monotonic()
        if sys.stderr.isatty():
            print(f"\r\x1b[K{bar}{text}", end="\n" if complete else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


@contextmanager
def speaking(title: str, silence: float = SILENCE, tell: Callable[[str], None] | None = None) -> Iterator[Callable[[], None]]:
    """While the block runs, a line whenever nothing was said for ``silence`` seconds: loading a model, hashing files or
    one long step has no progress of its own.

    The line goes to ``tell``; without it, where progress goes, and what that shows counts as said. Yields what to call
    when something was said elsewhere.
    """
    started = latest = time.monotonic()
    over = threading.Event()

    def heard() -> None:
        nonlocal latest
        latest = time.monotonic()

    def watch() -> None:
        while not over.wait(min(1.0, silence / 4)):
            now = time.monotonic()
            if now - (latest if tell else max(latest, _last_shown)) < silence or is_quiet():
                continue
            heard()
            line = f"{title}: working, {duration(now - started)} so far"
            if tell:
                tell(line)
            else:
                _print(line, complete=False)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join()
