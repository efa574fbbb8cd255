"""The report so far, while a run goes on: in ``reports/partial``, from its first pictures on."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cadiff.errors import CADiffError
from flows.stage import guarded, last_words

PARTIAL = Path("reports/partial")
# The stages after which there is something new to see.
SHOWN = frozenset({"synthesize", "generate", "showcase", "detect-generated", "detect-synthesized", "detect-union", "peer"})
EVERY = 120.0  # seconds between two pages: one takes ten, of a core that the stages want


class Glimpse:
    """Writes the page beside the stages, one at a time; what goes wrong with it is said and stops nothing."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self.root, self.say = root, say
        self._last = -EVERY
        self._writing: threading.Thread | None = None

    def after(self, address: str) -> None:
        """Hears of a stage that is done."""
        busy = self._writing is not None and self._writing.is_alive()
        if address.partition("@")[0] not in SHOWN or busy or time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        self._writing = threading.Thread(target=self._write, daemon=True)
        self._writing.start()

    def end(self, whole: bool) -> None:
        """Waits for the page that is being written; of a ``whole`` run, whose report is there, none is left."""
        if self._writing is not None:
            self._writing.join()
            if whole:
                shutil.rmtree(self.root / PARTIAL, ignore_errors=True)

    def _write(self) -> None:
        try:
            with guarded([sys.executable, "-m", "flows.report", "--partial"], self.root, {}) as process:
                assert process.stdout is not None
                lines = process.stdout.read().splitlines()
                status = process.wait()
        except CADiffError:  # the run is ending
            return
        if status == 0:
            self.say(f"the report so far: {(self.root / PARTIAL / 'index.html').resolve()}")
        else:
            self.say(f"the report so far cannot be written ({last_words(lines)}); the run goes on")
