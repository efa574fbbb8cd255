"""Rows that flow between stages, with their Arrow schemas. No behaviour beyond building and reading."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import pyarrow as pa

Role = Literal["normal", "calibration", "exemplar", "held_out", "test_good"]
ChosenProtocol = Literal["strict", "filtered", "legacy"]  # cadiff.params.DetectorParams
ProtocolName = Literal["strict", "filtered", "legacy", "unknown"]  # unknown: of maps that were made elsewhere
ROLES: tuple[Role, ...] = ("normal", "calibration", "exemplar", "held_out", "test_good")

# Hugging Face `datasets` reads a struct of this shape as an Image feature.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Levels(NamedTuple):
    """Which values of pictures of more than 8 bits a channel are shown as 0 and as 255 (``dataset.range``)."""

    low: float
    high: float


@dataclass(frozen=True)
class SampleRow:
    """A real image. ``anomaly_type`` and ``mask_path`` are None for normal images; paths are as given to the reader. ``low`` and ``high``
    are its ``levels``, None where it has 8 bits a channel.

    ``approximate``: the mask, or a part of it, stems from a box (``cadiff.data.approximate``).

    A mask's path may be that of a folder, and several, one a line: the union of all these images (``cadiff.storage.mask_files``).
    The digests are of all that is read, so that what reads the pictures by these rows need name nothing but the rows as what it depends on.
    """

    sample_id: str
    dataset: str
    product: str
    anomaly_type: str | None
    role: Role
    image_path: str
    mask_path: str | None
    width: int
    height: int
    image_sha256: str
    low: float | None = None
    high: float | None = None
    mask_sha256: str | None = None
    approximate: bool = False

    @property
    def levels(self) -> Levels | None:
        """How ``cadiff.storage.read_image`` is to read it."""
        return None if self.low is None or self.high is None else Levels(self.low, self.high)


@dataclass(frozen=True)
class SceneRow:
    """A scene as a table keeps it (``cadiff.scene.Scene``): one entry a list for each anomaly.

    ``masks`` are PNG 0/255 at the canvas. ``movements`` are what was done to the masks of ``exemplar_ids``: scale, turn in radians,
    mirror (0 or 1), then the place of the centroid as shares of the height and the width (None: nothing). ``named`` is false where a
    normal is drawn anew in a place and nothing is asked for. ``approximate``: an exemplar's mask of these stems from a box.
    """

    scene_id: str
    product: str
    named: bool
    anomaly_types: list[str]
    masks: list[dict[str, Any]]
    mask_sources: list[str]
    intensities: list[float]
    exemplar_ids: list[str | None]
    movements: list[list[float] | None]
    picture_id: str | None
    normal_id: str | None
    seed: int
    template: int
    approximate: bool = False


ATTEMPTS = 3  # drawings of a scene, until what was asked for is there
REDRAWN = "redrawn"  # mask_source of a normal image in which a place was drawn anew
WITHOUT_GOOD = (  # said of a folder of images that was made elsewhere
    "brought no normal images that took the generator’s path (a folder “good”), so a detector may have learnt from the generator’s "
    "traces what is generated, not what is anomalous"
)


@dataclass(frozen=True)
class GeneratedRow:
    """A generated image with its provenance. ``anomaly_types`` is empty for a normal image that took the same path.

    ``image`` and ``mask`` are ``{"bytes": PNG, "path": name}``; ``focus_step`` is the denoising step (from 0) at
    which re-weighting began, None if it never did or the generator has no such thing. ``normal_id`` is the real normal outside of the
    mask, byte for byte where nothing was resampled (None: another picture, or none), ``exemplar_ids`` the exemplar of each type's mask.
    ``attempts`` is the drawing that had what was asked for; 4, one more than there are: none had, and the best is kept. ``approximate``:
    the mask has the shape of an exemplar's that stems from a box. Fields that a generator does not have (a cut-paste image has no prompt)
    are None.
    """

    sample_id: str
    product: str
    anomaly_types: list[str]
    image: dict[str, Any]
    mask: dict[str, Any]
    mask_source: str
    prompt: str | None
    intensity: float | None
    seed: int
    steps: int | None
    guidance_scale: float | None
    focus_step: int | None
    normal_id: str | None
    exemplar_ids: list[str | None]
    base_digest: str | None
    generator_digest: str | None
    params_digest: str
    image_sha256: str
    attempts: int | None = None
    approximate: bool = False


@dataclass(frozen=True)
class MetricRow:
    """One measured figure. ``paper_value`` is null where the paper has none; ``n`` counts the images behind it. ``approximate``: it is one
    by pixel, and a mask that it was measured against stems from a box (None: of a table that is older than this column)."""

    dataset: str
    product: str
    method: str
    variant: str
    metric: str
    value: float
    seed: int
    n: int
    protocol: ProtocolName
    paper_value: float | None
    params_digest: str
    approximate: bool | None = False


@dataclass(frozen=True)
class ScoredRow:
    """A held-out image with what a detector said of it: ``anomaly_map`` is an 8-bit PNG for viewing only; ``approximate`` is its
    ``SampleRow``'s."""

    sample_id: str
    product: str
    anomaly_type: str | None
    method: str
    seed: int
    image_score: float
    anomaly_map: dict[str, Any]
    approximate: bool = False


@dataclass(frozen=True)
class QualityRow:
    """Signals of one generated image, or of a real exemplar for comparison (``source``); see cadiff/metrics/quality.py.

    Distances are ratios, 1 for what is usual among real images. None where a signal is not defined. ``approximate``: its mask, or one of
    the exemplars' that it is compared with, stems from a box.
    """

    sample_id: str
    product: str
    method: str
    anomaly_type: str
    source: Literal["generated", "exemplar"]
    exemplar_distance: float | None
    nearest_exemplar: str | None
    mask_agreement: float | None
    normal_distance: float | None
    approximate: bool = False


@dataclass(frozen=True)
class ShowcaseRow:
    """A picture of the report's figures that needs the model. Pictures of one ``figure`` and ``group`` share mask,
    noise and background and stand side by side; ``label`` tells them apart.

    ``intensities`` has one w per anomaly type. ``change_inside`` and ``change_outside`` are mean absolute differences
    of values in [0, 1] from the group's reference, inside the mask and outside (None: the group has no reference).
    """

    figure: Literal["ladder", "attention", "composition", "edit"]
    group: str
    label: str
    product: str
    anomaly_types: list[str]
    intensities: list[float]
    image: dict[str, Any]
    mask: dict[str, Any]
    prompt: str | None
    seed: int
    focus_step: int | None
    change_inside: float | None
    change_outside: float | None


@dataclass(frozen=True)
class AttentionRow:
    """A type's cross-attention at one denoising step (from 0), ``side`` x ``side`` cells in rows, as the image was
    drawn with it: after re-weighting where ``acting``. ``focus`` is alpha_t of Eq. 11, before re-weighting.
    ``group`` and ``label`` name the ShowcaseRow of the picture."""

    product: str
    group: str
    label: str
    step: int
    side: int
    attention: list[float]
    focus: float
    acting: bool


@dataclass(frozen=True)
class VectorRow:
    """A learned token's contextual vector: the text encoder's output at its place in one prompt."""

    product: str
    concept: str
    prompt: str
    vector: list[float]


@dataclass(frozen=True)
class ValidationRow:
    """A picture that was drawn in the middle of a training, after ``step`` of its steps; those of one type share mask, noise and
    background. At step -1 it is the exemplar that the mask is of."""

    product: str
    anomaly_type: str
    step: int
    image: dict[str, Any]
    mask: dict[str, Any]
    prompt: str | None
    seed: int


def _with_features(fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    """A schema that tells Hugging Face ``datasets`` which columns are images, in the metadata that it writes itself."""
    features = {name: _feature(kind) for name, kind in fields}
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> Any:
    """``datasets``' name of a column's type. A list is written as one, which every version reads, where their class of it was renamed."""
    if kind == IMAGE:
        return {"_type": "Image"}
    return [_feature(kind.value_type)] if pa.types.is_list(kind) else {"dtype": FEATURES.get(str(kind), str(kind)), "_type": "Value"}


FEATURES = {"double": "float64", "float": "float32"}  # what Arrow calls otherwise than `datasets`
SAMPLE_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()), ("dataset", pa.string()), ("product", pa.string()),
        ("anomaly_type", pa.string()), ("role", pa.string()), ("image_path", pa.string()),
        ("mask_path", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("image_sha256", pa.string()),
        ("low", pa.float64()), ("high", pa.float64()), ("mask_sha256", pa.string()), ("approximate", pa.bool_()),
    ]
)
SCENE_SCHEMA = pa.schema(
    [
        ("scene_id", pa.string()), ("product", pa.string()), ("named", pa.bool_()), ("anomaly_types", pa.list_(pa.string())),
        ("masks", pa.list_(IMAGE)), ("mask_sources", pa.list_(pa.string())), ("intensities", pa.list_(pa.float64())),
        ("exemplar_ids", pa.list_(pa.string())), ("movements", pa.list_(pa.list_(pa.float64()))), ("picture_id", pa.string()),
        ("normal_id", pa.string()), ("seed", pa.int64()), ("template", pa.int64()), ("approximate", pa.bool_()),
    ]
)
GENERATED_SCHEMA = _with_features(
    [
        ("sample_id", pa.string()), ("product", pa.string()), ("anomaly_types", pa.list_(pa.string())),
        ("image", IMAGE), ("mask", IMAGE), ("mask_source", pa.string()), ("prompt", pa.string()),
        ("intensity", pa.float64()), ("seed", pa.int64()), ("steps", pa.int32()), ("guidance_scale", pa.float64()),
        ("focus_step", pa.int32()), ("normal_id", pa.string()), ("exemplar_ids", pa.list_(pa.string())),
        ("base_digest", pa.string()), ("generator_digest", pa.string()),
        ("params_digest", pa.string()), ("image_sha256", pa.string()), ("attempts", pa.int32()),
        ("approximate", pa.bool_()),
    ],
)
METRIC_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()), ("product", pa.string()), ("method", pa.string()), ("variant", pa.string()),
        ("metric", pa.string()), ("value", pa.float64()), ("seed", pa.int64()), ("n", pa.int64()),
        ("protocol", pa.string()), ("paper_value", pa.float64()), ("params_digest", pa.string()), ("approximate", pa.bool_()),
    ]
)
SCORED_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()), ("product", pa.string()), ("anomaly_type", pa.string()), ("method", pa.string()),
        ("seed", pa.int64()), ("image_score", pa.float64()), ("anomaly_map", IMAGE), ("approximate", pa.bool_()),
    ]
)
QUALITY_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()), ("product", pa.string()), ("method", pa.string()), ("anomaly_type", pa.string()),
        ("source", pa.string()), ("exemplar_distance", pa.float64()), ("nearest_exemplar", pa.string()),
        ("mask_agreement", pa.float64()), ("normal_distance", pa.float64()), ("approximate", pa.bool_()),
    ]
)
SHOWCASE_SCHEMA = pa.schema(
    [
        ("figure", pa.string()), ("group", pa.string()), ("label", pa.string()), ("product", pa.string()),
        ("anomaly_types", pa.list_(pa.string())), ("intensities", pa.list_(pa.float64())), ("image", IMAGE),
        ("mask", IMAGE), ("prompt", pa.string()), ("seed", pa.int64()), ("focus_step", pa.int32()),
        ("change_inside", pa.float64()), ("change_outside", pa.float64()),
    ]
)
ATTENTION_SCHEMA = pa.schema(
    [
        ("product", pa.string()), ("group", pa.string()), ("label", pa.string()), ("step", pa.int32()),
        ("side", pa.int32()), ("attention", pa.list_(pa.float32())), ("focus", pa.float64()), ("acting", pa.bool_()),
    ]
)
VECTOR_SCHEMA = pa.schema(
    [
        ("product", pa.string()), ("concept", pa.string()), ("prompt", pa.string()), ("vector", pa.list_(pa.float32())),
    ]
)
VALIDATION_SCHEMA = pa.schema(
    [
        ("product", pa.string()), ("anomaly_type", pa.string()), ("step", pa.int32()), ("image", IMAGE), ("mask", IMAGE),
        ("prompt", pa.string()), ("seed", pa.int64()),
    ]
)
# Losses over training steps: tidy, so that any number of parts fits one table.
CURVE_SCHEMA = pa.schema([("step", pa.int32()), ("name", pa.string()), ("value", pa.float64())])

Row = TypeVar("Row")


def to_table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Dataclass rows as a table of exactly this schema."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)


def from_table(table: pa.Table, row_type: type[Row]) -> list[Row]:
    """A table's rows as dataclasses."""
    return [row_type(**values) for values in table.to_pylist()]
