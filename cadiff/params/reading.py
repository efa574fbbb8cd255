"""The only reader and writer of YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cadiff.errors import UsageError


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is given twice is an error, and not the last one's, and numbers are also those of YAML 1.2, which DVC reads:
    a name such as 08 or 1e3 that is not in quotes would be one here and a number there."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        text = str(node.value)
        return int(text, 0) if text.startswith("0o") else int(text) if re.fullmatch(r"[-+]?0\d+", text) else self.construct_yaml_int(node)


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what ``_Loader`` would not read as text."""


INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(INT, re.compile(r"[-+]?[0-9]+$|0o[0-7]+$"), list("-+0123456789"))
    _kind.add_implicit_resolver(FLOAT, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+.0123456789"))
_Loader.add_constructor(INT, _Loader.construct_whole_number)


def as_written(values: dict[str, Any]) -> list[str]:
    """Values as the lines of a parameters' file."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return text.splitlines()


def inline(value: Any) -> str:
    """One value as it stands behind its key."""
    text: str = yaml.dump({"key": value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=True)
    return text.strip().removeprefix("{key: ").removesuffix("}")


def read_mapping(path: Path) -> dict[Any, Any]:
    """A YAML file's mapping that is none of parameters, such as the classes' names beside YOLO's labels.

    Raises:
        UsageError: if it does not read, or holds no mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: expected YAML, but it does not read ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected keys with values, found {type(values).__name__}")
    return values


def read_file(path: Path) -> dict[str, Any]:
    """A file of parameters as it stands, none of it checked but that its keys are names.

    Raises:
        UsageError: names the file and what is wrong with it.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; `cadiff preset NAME` writes one (presets/*.yaml)") from None
    except OSError as error:
        raise UsageError(f"{path}: expected a YAML file, but it does not open ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: expected UTF-8 text; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
    if odd := [key for key in values if not isinstance(key, str)]:
        raise UsageError(f"{path}: {odd[0]}: unknown key; remove it or correct its spelling")
    return values
