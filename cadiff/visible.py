"""What of a folder is someone's data: not what is hidden, nor what file managers, photo programs and storage boxes leave there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cadiff.errors import UsageError
from cadiff.names import composed

# In small letters; .dvcignore names them too, so that DVC does not see them either (a test compares the two).
LITTER = frozenset(
    {
        "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",  # Windows
        "__macosx",  # macOS; its other files begin with a dot
        "lost+found",  # ext file systems
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",  # Synology, QNAP
        "picasa.ini", "zbthumbnail.info",  # photo programs
    }
)  # fmt: skip


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name is never read: it is hidden, or litter."""
    return name.startswith(".") or name.lower() in LITTER


def visible(folder: Path) -> list[Path]:
    """What is in ``folder`` by name, without what is passed over; none if ``folder`` is not there.

    Raises:
        UsageError: if the folder does not open.
    """
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder}: does not open ({error.strerror}); give yourself the right to read it, or move it away") from None
    return [folder / name for name in names if not is_passed_over(name)]


def linked_folders(base: Path, files: Iterable[Path]) -> list[Path]:
    """The folders below ``base`` that are links out of it and that lead to one of ``files``, which may be folders themselves.

    DVC follows ``base`` and links to files, but no link to a folder: what lies behind one changes without a rerun.
    """
    places: set[Path] = set()
    for file in files:
        for place in (file, *file.parents):
            if place in places or place == base:
                break
            places.add(place)
    home = base.resolve()
    return sorted(place for place in places if place.is_symlink() and os.path.isdir(place) and not place.resolve().is_relative_to(home))


def link_problem(link: Path, base: Path) -> str:
    """What is wrong with one of ``linked_folders``, and what to do."""
    return (
        f"{link}: a link to a folder out of {base}, behind which DVC sees no change, so that nothing would run again; put the folder "
        f"itself here, or make {base} the link"
    )


def twin(path: Path) -> Path:
    """``path``, or where it is not there the one beside it whose name is the same in another Unicode form."""
    if path.exists():
        return path
    return next((other for other in visible(path.parent) if composed(other.name) == composed(path.name)), path)


def check_links(base: Path) -> None:
    """
    Raises:
        UsageError: names the first folder below ``base`` that is a link out of it.
    """
    for place, inner, _ in os.walk(base):
        if links := linked_folders(base, [Path(place, name) for name in inner]):
            raise UsageError(link_problem(links[0], base))
