"""The folder of pictures that labels speak of: what lies in it, and which of them a name in the labels means."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from cadiff.errors import UsageError
from cadiff.storage import IMAGE_SUFFIXES, image_size
from cadiff.visible import is_passed_over

UPLOADED = re.compile(r"[0-9a-f]{6,8}-(?=.)")  # what Label Studio sets before the name of an uploaded picture


class PictureFolder:
    """All visible pictures below ``root``: ``files`` maps the path below it (with ``/``, in NFC) to the file. No link to a folder is
    followed."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UsageError(f"{root}: expected the folder of pictures (--images), but it is not there")
        self.root = root
        self.files = dict(sorted(self._walk()))
        self._ends: dict[str, list[str]] = defaultdict(list)
        self._stems: dict[str, list[str]] = defaultdict(list)
        for key in self.files:
            self._ends[PurePosixPath(key).name].append(key)
            parts = PurePosixPath(key).with_suffix("").parts
            for start in range(len(parts)):
                self._stems["/".join(parts[start:])].append(key)
        self._sizes: dict[str, tuple[int, int]] = {}
        self._bare = Counter(PurePosixPath(key).stem.casefold() for key in self.files)
        self._joined = Counter(map(_joined, self.files))
        if not self.files:
            raise UsageError(f"{root}: expected pictures (--images), found none of {', '.join(sorted(IMAGE_SUFFIXES))}")

    def _walk(self) -> list[tuple[str, Path]]:
        found = []
        for folder, inner, names in os.walk(self.root, onerror=_refuse):
            inner[:] = [name for name in inner if not is_passed_over(name)]
            paths = (Path(folder, name) for name in names if not is_passed_over(name))
            found += [(_plain(p.relative_to(self.root).as_posix()), p) for p in paths if p.suffix.lower() in IMAGE_SUFFIXES]
        return found

    def find(self, name: str, origin: Path) -> str | None:
        """The key of the picture that labels call ``name``; None: it is not there.

        What is before the folder of pictures (a drive, a bucket, a server) is passed over: the picture is the one below the folder
        whose path ends as the name does. Nothing outside of the folder is ever looked at.

        Raises:
            UsageError: if ``..`` leads out of the folder, or several pictures have the name.
        """
        path = _plain(local_path(name))
        if ".." in PurePosixPath(path).parts:
            path = self._climbed(path, name, origin)
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            if "/".join(parts[start:]) in self.files:
                return "/".join(parts[start:])
        return self._by_end(parts, name, origin)

    def _climbed(self, path: str, name: str, origin: Path) -> str:
        """A path with ``..`` in it, as seen from the folder that the labels lie in, below the folder of pictures."""
        start = origin if origin.is_dir() else origin.parent
        whole, root = Path(os.path.normpath(start.resolve() / path)), self.root.resolve()
        if not whole.is_relative_to(root):
            raise UsageError(
                f"{origin}: the picture {name!r} leads out of {self.root}, and nothing outside of it is read; "
                "name the folder that holds it with --images, or mend the path"
            )
        return _plain(whole.relative_to(root).as_posix())

    def _by_end(self, parts: list[str], name: str, origin: Path) -> str | None:
        """By the file's name alone, where the folders do not contradict: none is named, or the picture lies in none, or it was uploaded."""
        if not parts:
            return None
        uploaded = UPLOADED.sub("", parts[-1], count=1) if parts[-1] not in self._ends else parts[-1]
        known = self._ends.get(uploaded, [])
        if len(parts) > 1 and "upload" not in parts[:-1]:
            known = [key for key in known if "/" not in key]
        if len(known) > 1:
            several = f"{known[0]} or {known[1]} of {self.root}"
            raise UsageError(f"{origin}: the picture {name!r} may be {several}; name its folder in the labels, or rename one")
        return known[0] if known else None

    def with_stem(self, stem: str) -> str | None:
        """The key of the picture whose path ends, without suffix, as ``stem`` does; None: none, or several."""
        parts = _plain(stem).split("/")
        for start in range(len(parts)):
            known = self._stems.get("/".join(parts[start:]), [])
            if known:
                return known[0] if len(known) == 1 else None
        return None

    def size(self, key: str) -> tuple[int, int]:
        """Width and height of a picture, from its header.

        Raises:
            CADiffError: if it does not open, or is stored turned: labels are drawn on what the tool shows.
        """
        if key not in self._sizes:
            self._sizes[key] = image_size(self.files[key])
        return self._sizes[key]

    def short_name(self, key: str) -> str:
        """A file name for a picture among all of the folder's: its own where no other has it (without suffix, whatever its case), else with
        the folders before it, and where that is another's too, with its suffix."""
        path = PurePosixPath(key)
        if self._bare[path.stem.casefold()] == 1:
            return path.name
        joined = "-".join(path.parts)
        return joined if self._joined[_joined(key)] == 1 else f"{joined.replace('.', '-')}{path.suffix}"


def _refuse(error: OSError) -> None:
    raise UsageError(f"{error.filename}: expected a folder that can be read, found: {error.strerror}; allow it, or move it away")


def _joined(key: str) -> str:
    return "-".join(PurePosixPath(key).with_suffix("").parts).casefold()


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def local_path(name: str) -> str:
    """The path in what a tool calls a picture: a path of any system, an address, a bucket's key, Label Studio's ``?d=``."""
    if "?d=" in name:
        return parse_qs(urlsplit(name).query).get("d", [""])[0].replace("\\", "/")
    if "://" in name:
        return unquote(urlsplit(name).path)
    return name.replace("\\", "/")
