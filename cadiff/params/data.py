"""Sections of what there is before anything is made: the images, and the demo's drawing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from cadiff.params.section import Section

Layout = Literal["demo", "mvtec", "visa", "loco", "folder"]
VISA_TABLE = "../split_csv/1cls.csv"
TABLES: dict[str, str] = {"visa": VISA_TABLE}  # by layout; others have none
Range = tuple[float, float] | tuple[str, str]  # values, or percentiles of the train normals ("0.1%")


def percentiles(limits: Sequence[Any]) -> list[float] | None:
    """Two limits such as ``0.1%`` as numbers; None: they are not such."""
    found = [re.fullmatch(r"(\d+(?:\.\d+)?) ?%", limit) for limit in limits if isinstance(limit, str)]
    return [float(each[1]) for each in found if each] if all(found) and len(found) == len(limits) else None


class DatasetParams(Section):
    """Where the real images are; they are only read. For ``demo`` the first stage draws them, into ``data/made/demo``."""

    name: str = Field("own", description="what rows and the report call the data set")
    layout: Layout = Field("mvtec", description="how a product's folder is read: docs/data.md")
    root: str = Field("data/raw", description="the folder of the products' folders")
    table: str = Field(
        ".", description=f"a table that lies beside the products' folders, as seen from one, so that DVC watches it: {VISA_TABLE} with "
        "layout: visa; .: there is none"
    )
    max_normals: int | None = Field(None, ge=1, description="use at most this many train normals, by sorted name")
    size: int | Literal["native"] = Field(
        256,
        description="the canvas: px of a picture's shorter side, its aspect ratio kept; native: as it is. Masks, generated images, "
        "anomaly maps and exports have this size",
    )
    range: Range | None = Field(
        None,
        description="of pictures of more than 8 bits a channel: the values that are black and white, such as [0, 4095], or percentiles of "
        "each product's train normals, such as [0.1%, 99.9%]; null: pictures have 8 bits",
    )
    calibration: float = Field(
        0.2, ge=0, lt=1,
        description="share of the train normals that nothing is trained on: they set the detector's threshold; 0: there is none",
    )  # fmt: skip

    @field_validator("root")
    @classmethod
    def _root_is_spelt_out(cls, value: str) -> str:
        if value.startswith("~"):
            raise ValueError(f"~ is not your home here; expected a whole path such as {Path(value).expanduser()}, found {value!r}")
        return value

    @field_validator("range", mode="before")
    @classmethod
    def _range_is_ordered(cls, value: Any) -> Any:
        pair = value if isinstance(value, list | tuple) and len(value) == 2 else (None, None)
        numbers = [float(one) for one in pair if isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)]
        shares = percentiles(pair) or []
        within = all(0 <= share <= 100 for share in shares)
        if value is None or (len(numbers) == 2 and numbers[0] < numbers[1]) or (shares and within and shares[0] < shares[1]):
            return value if value is None or shares else tuple(numbers)
        raise ValueError(f"expected two values, the smaller first, such as [0, 4095] or [0.1%, 99.9%], found {value!r}")

    @field_validator("size")
    @classmethod
    def _canvas_is_no_speck(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 16:
            raise ValueError(f"expected native or at least 16 px, found {value}")
        return value


class DrawParams(Section):
    """The demo data set's drawing."""

    products: list[str] = Field([], description="what the demo draws; [] for a data set that is already on disk")
    normals: int = Field(60, ge=1, description="normal pictures of each product, for training")
    test_good: int = Field(20, ge=0, description="good pictures of each product that are held out")
    anomalies_per_type: int = Field(24, ge=3, description="a third are exemplars, the rest is held out")
