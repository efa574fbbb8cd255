"""What every section of the parameters is: a frozen pydantic model in which an unknown key is an error."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """``RECIPE`` names the keys that stand under ``recipe.<section>`` in files: readings of the paper and residue of tuning. In code they
    are keys of the section as the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    RECIPE: ClassVar[frozenset[str]] = frozenset()


SectionType = TypeVar("SectionType", bound=Section)


def checked(section: type[SectionType], name: str, values: Any) -> SectionType:
    """A section from its values; a ValueError names the key below ``name``."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{name}.{first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """One line of a validation error: the key, what was expected, what came."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or correct its spelling"
    if problem["type"] == "value_error":
        return f"{where}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
    return f"{where}: {problem['msg']}, found {problem['input']!r}"
