"""What a terminal, a log and a quiet run show."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from cadiff.progress import Progress, duration, speaking

WORK = """
import time
from cadiff.progress import Progress
bar = Progress("train nut", 4, done=1)
for step in range(3):
    time.sleep(0.25)
    bar.advance(1, {"denoising": 0.5, "localizing": 0.25})
"""


@pytest.fixture(autouse=True)
def not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CADIFF_QUIET")


def in_terminal() -> str:
    """What WORK writes to a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", WORK], stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 1024)
        except OSError:  # Linux' way to say that the terminal is closed
            break
        if not piece:
            break
        shown += piece
    assert process.wait() == 0
    os.close(leader)
    return shown.decode()


def test_a_terminal_shows_one_bar_with_rate_time_left_and_losses() -> None:
    states = in_terminal().split("\r\x1b[K")
    assert len(states) >= 3
    assert re.match(r"\[#{12}\.{12}\] train nut 2/4 \(\d+\.\d\d/s, \d+ s left\) denoising 0.5 localizing 0.25$", states[2]), states
    assert states[-1].startswith("[" + "#" * 24 + "] train nut 4/4")
    assert states[-1].endswith("\n")


def test_a_log_gets_whole_lines_and_never_falls_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking("train nut", silence=0.2):
        bar = Progress("train nut", 3, log_seconds=0)
        time.sleep(0.5)
        bar.advance(3, {"loss": 0.125})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train nut 0/3"
    assert lines[1] == "train nut: working, 0 s so far"
    assert re.match(r"train nut 3/3 \(\d+\.\d\d/s\) loss 0.125$", lines[-1])
    assert "\x1b" not in "".join(lines)


def test_silence_is_told_where_it_is_asked_for_and_what_was_heard_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with speaking("train nut", silence=1.0, tell=lines.append) as heard:
        for _ in range(15):
            time.sleep(0.1)
            heard()
        assert lines == [], "it was not silent"
        time.sleep(1.5)
    assert lines
    assert re.fullmatch(r"train nut: working, \d s so far", lines[0])
    assert capsys.readouterr().err == ""


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CADIFF_QUIET", "1")
    with speaking("train nut", silence=0.01):
        Progress("train nut", 1).advance()
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")])
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text
