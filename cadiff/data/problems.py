"""How problems are said: each cause once, whatever the number of files that it befalls, in characters that every terminal prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

FEW = 3  # of one cause in one folder, that are told one by one
MORE = " (the same of "  # what a line says that stands for several problems
LINE = re.compile(r"line \d+ \(.*?\): ")


def said_once(problems: Sequence[str]) -> list[str]:
    """The problems, each a line that starts with its file, more than ``FEW`` of one cause and folder as one: the first's, and how many more
    there are, with the names of some."""
    alike: dict[tuple[str, str], list[str]] = {}
    for problem in map(printable, problems):
        alike.setdefault(_cause(problem), []).append(problem)
    said: list[str] = []
    for (folder, _), found in alike.items():
        if len(found) <= FEW:
            said += found
            continue
        names = ", ".join(_name(problem) for problem in found[1:3])
        said.append(f"{found[0]}{MORE}{len(found) - 1} more in {folder}: {names}{', ...' if len(found) > 3 else ''})")
    return said


def printable(text: str) -> str:
    """Text with what is no character (a file's name in another encoding) written as its bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _cause(problem: str) -> tuple[str, str]:
    """Where a problem lies and what it says, without what is its file's own: the name and, in a table, the line."""
    path, _, text = problem.partition(": ")
    if LINE.match(text):
        return path, LINE.sub("", text, count=1)
    stem = PurePath(path).stem
    own = stem.removesuffix("_mask")
    return str(PurePath(path).parent), text.replace(stem, "*").replace(own, "*") if own else text


def _name(problem: str) -> str:
    path, _, text = problem.partition(": ")
    return text.partition(":")[0] if LINE.match(text) else PurePath(path).name
