"""How label files are opened: whole up to a stated size, else streamed; and how what is wrong in one is told."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson
import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse
from jaxtyping import Float

from cadiff.errors import CADiffError, UsageError
from cadiff.opening import opened
from cadiff.visible import is_passed_over

WHOLE = 2**28  # bytes of a file that is read at once: one that speaks of a single picture, which may lie in it as text


@contextlib.contextmanager
def told(origin: Path, place: str) -> Iterator[None]:
    """What is wrong in ``place`` of a label file as an error that names both; files of strangers hold anything anywhere."""
    try:
        yield
    except UsageError:
        raise
    except KeyError as error:
        raise UsageError(f"{origin}: {place}: expected {error.args[0]!r}, but it is not there; export the labels again") from None
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError, CADiffError) as error:  # the last: of a mask within it
        said = str(error).rstrip(".")
        raise UsageError(f"{origin}: {place}: {said}; mend it in the labelling tool, and export again") from None


def read_whole(path: Path) -> bytes:
    """The bytes of a small file.

    Raises:
        UsageError: if it does not open, or is larger than ``WHOLE``.
    """
    with opened(path, "a label file") as file:
        if (size := os.fstat(file.fileno()).st_size) > WHOLE:
            expected = f"expected at most {WHOLE / 1e6:.0f} MB of labels of one picture, found {size / 1e6:.0f}"
            raise UsageError(f"{path}: {expected}: leave the picture out of them")
        return file.read()


def read_text(path: Path) -> str:
    try:
        return read_whole(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: expected UTF-8 text; save it as UTF-8") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object of a small JSON file."""
    return parse_object(read_text(path), path)


def parse_object(text: str, path: Path, place: str = "") -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {place}expected JSON, but it does not parse ({error}); export the labels again") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {place}expected a JSON object, found {type(value).__name__}; export the labels again")
    return value


def stream(path: Path, prefix: str) -> Iterator[Any]:
    """The values at ``prefix`` of a JSON file of any length (``images.item``), one in memory at a time.

    Raises:
        UsageError: if it does not open or parse.
    """
    try:
        with opened(path, "a label file") as file:
            file.seek(3 if file.read(3) == b"\xef\xbb\xbf" else 0)
            yield from ijson.items(file, prefix, use_float=True)
    except (ijson.JSONError, UnicodeDecodeError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{path}: expected JSON, but it does not parse ({said}); export the labels again") from None


def xml_elements(path: Path, tags: frozenset[str]) -> Iterator[Any]:
    """The elements of an XML file of any length with these tags, each complete and forgotten after.

    Raises:
        UsageError: if it does not open or parse, or declares a document type or entities, which no labels need.
    """
    try:
        with opened(path, "a label file") as file:
            for event, element in iterparse(file, ("start", "end"), forbid_dtd=True):
                if element.tag in tags and event == "end":
                    yield element
                    element.clear()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise UsageError(f"{path}: expected XML of plain elements, but it does not parse ({error or type(error).__name__})") from None


def start(path: Path, size: int = 65536) -> str:
    """The first characters of a file, whatever they are; empty if it does not open."""
    try:
        with opened(path) as file:
            return file.read(size).decode("utf-8-sig", "replace").lstrip()
    except UsageError:
        return ""


def files_of(path: Path, suffix: str) -> list[Path]:
    """A label file itself, or the visible files of this suffix below a folder, by name."""
    if path.is_file():
        return [path]
    found = (p for p in path.rglob("*") if p.suffix.lower() == suffix and p.is_file())
    return sorted(p for p in found if not any(map(is_passed_over, p.relative_to(path).parts)))


def ring(numbers: Any) -> Float[np.ndarray, "n 2"]:
    """Corners from x, y, x, y, ... or from pairs.

    Raises:
        ValueError: if they are no such numbers.
    """
    try:
        values = np.asarray(numbers, np.float64)
        return values.reshape(-1, 2)
    except (ValueError, TypeError):
        raise ValueError("expected a polygon as pairs of numbers") from None
