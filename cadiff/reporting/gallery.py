"""Pictures for the page: real and generated anomalies with their masks outlined."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import matplotlib
import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation
from skimage.measure import approximate_polygon, find_contours

from cadiff.pictures import canvas_of
from cadiff.records import GeneratedRow, QualityRow, SampleRow
from cadiff.reporting.artefacts import SHOWN, WITH_SHOWN, Artefacts
from cadiff.reporting.signals import SIGNALS, signals_of
from cadiff.storage import decode_image, encode_png, resize_mask

PER_GROUP, LEAST_PER_GROUP = 24, 4
PER_PEER = 8
BUDGET = 6_000_000  # characters of data URIs in the gallery, so that the page stays a few MB
APART = 64  # an outline runs one part in so many of the side outside of its mask: along a crack's own border it would hide the crack
EXACT_SIDE = 128  # px of the longer side, up to which an image is inlined as it is
SHOWN_SIDE, SHOWN_LENGTH = 256, 512  # px that the two sides of what stands for a larger one have at most: less hides a seam
QUALITY = 85  # of its JPEG
PNG_COST, JPEG_COST = 3.3, 0.5  # characters of base64 that a pixel of a photograph takes, about


@dataclass(frozen=True)
class Picture:
    """An inlined image of ``width`` x ``height`` px; ``outline`` is an SVG path in these, ``row`` the provenance, ``signals`` what
    its quality signals say against it."""

    uri: str
    alt: str
    caption: str
    outline: str
    width: int
    height: int
    source: str
    product: str
    anomaly_type: str
    intensity: float | None
    area: float
    row: dict[str, str]
    signals: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every pixel is there, to be shown as a square."""
        return self.uri.startswith("data:image/png")


@dataclass(frozen=True)
class Group:
    """One product's anomaly type from one source: the pictures shown, and what was read from all there are.

    ``intensities`` are w (empty where a source has none), ``areas`` the masks' shares of the image.
    """

    product: str
    anomaly_type: str
    source: str
    pictures: list[Picture]
    areas: list[float]
    intensities: list[float]

    @property
    def total(self) -> int:
        return len(self.areas)


def shown_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width at which the page shows a picture: its own up to 256 px of the shorter side and 512 of the longer."""
    shorter, longer = sorted((height, width))
    scale = min(1.0, SHOWN_SIDE / shorter, SHOWN_LENGTH / longer)
    return max(1, round(height * scale)), max(1, round(width * scale))


def data_uri(pixels: np.ndarray) -> str:
    """uint8 pixels (``h w 3`` or ``h w``) as a data URI: an exact PNG to 128 px, a JPEG at ``shown_shape`` above."""
    if max(pixels.shape[:2]) <= EXACT_SIDE:
        return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    height, width = shown_shape(*pixels.shape[:2])
    return jpeg_uri(image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS))


def jpeg_uri(image: Image.Image) -> str:
    """As it is, as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat(anomaly_map: np.ndarray) -> np.ndarray:
    """An 8-bit anomaly map (``h w``) in colours (``h w 3``): dark 0, bright 255."""
    colours = np.asarray(matplotlib.colormaps["inferno"](anomaly_map))[..., :3]
    return (colours * 255).round().astype(np.uint8)


def outline(mask: np.ndarray, apart: int = 0) -> str:
    """The border of a mask (uint8 ``h w``, 0/255), grown by ``apart`` pixels, as an SVG path in pixels; empty for an empty mask."""
    inside = binary_dilation(mask > 127, iterations=apart) if apart else mask > 127
    # Padding by one pixel closes contours that touch the image's border; pixel i covers [i, i + 1] in SVG.
    contours = find_contours(np.pad(inside, 1).astype(float), 0.5)
    paths = []
    for contour in contours:
        limits = np.array([mask.shape[1], mask.shape[0]])
        xy = approximate_polygon(np.clip(contour[:, ::-1] - 0.5, 0, limits), max(mask.shape) / 300)
        paths.append("M" + "L".join(f"{x:g} {y:g}" for x, y in xy[:-1]) + "Z")
    return "".join(paths)


def real_picture(artefacts: Artefacts, row: SampleRow) -> Picture | None:
    """A real image at its canvas; None if its file is absent (and a part is enough)."""
    shape = canvas_of(row, artefacts.params.dataset.size)
    image = artefacts.image(row.image_path, "RGB", shape, row.levels)
    mask = np.zeros(shape, np.uint8) if row.mask_path is None else artefacts.image(row.mask_path, "L", shape)
    if image is None or mask is None:
        return None
    kind = row.anomaly_type or "good"
    alt = f"Real {row.product}, {kind}, {row.sample_id}"
    return picture(image, mask, asdict(row), alt=alt, caption=_last(row.sample_id), source="real",
                   product=row.product, kind=kind)  # fmt: skip


def generated_picture(
    row: GeneratedRow, method: str, anomaly_type: str, quality: QualityRow | None = None
) -> Picture:
    image = decode_image(row.image["bytes"], "RGB", row.sample_id)
    mask = decode_image(row.mask["bytes"], "L", row.sample_id)
    caption = _last(row.sample_id) if row.intensity is None else f"w = {row.intensity:.2f}"
    alt = f"Generated {row.product}, {anomaly_type}, by {method}, {caption}"
    more: dict[str, object] = {"method": method, "image": row.image["path"], "mask": row.mask["path"]}
    signals = signals_of(quality)
    if quality:
        more |= {name: getattr(quality, name) for name in SIGNALS}
        alt = ", ".join([alt, *signals])
    drawn = picture(image, mask, {**asdict(row), **more}, alt=alt, caption=caption, source=method,
                    product=row.product, kind=anomaly_type, intensity=row.intensity)  # fmt: skip
    return replace(drawn, signals=signals)


def picture(
    image: np.ndarray, mask: np.ndarray, row: dict[str, object], *, alt: str, caption: str, source: str,
    product: str, kind: str, intensity: float | None = None,
) -> Picture:  # fmt: skip
    """``row`` is shown as its provenance, in its order. Outlines are found at the size that is shown, whatever the canvas."""
    area = float((mask > 127).mean())
    shown = {name: _shown(value) for name, value in row.items()}
    shown["mask_area"] = f"{100 * area:.2f} %"
    shown["canvas"] = f"{mask.shape[1]} x {mask.shape[0]} px"
    height, width = shape = shown_shape(*mask.shape)
    drawn = outline(np.where(resize_mask(mask > 127, shape), 255, 0).astype(np.uint8), max(1, max(shape) // APART))
    return Picture(data_uri(image), alt, caption, drawn, width, height, source, product, kind, intensity, area, shown)


def _last(sample_id: str) -> str:
    return sample_id.rsplit("/", 1)[-1]


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(_shown(part) for part in value) if isinstance(value, list) else str(value)


def spread_out(rows: Sequence[GeneratedRow], count: int) -> list[GeneratedRow]:
    """``count`` rows evenly spaced in the order of intensity (then name), ends included: nobody picks."""
    ordered = sorted(rows, key=lambda row: (row.intensity is not None, row.intensity or 0.0, row.sample_id))
    if len(ordered) <= count:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, count).round().astype(int)]


def gallery(artefacts: Artefacts) -> list[Group]:
    """Per product and type: the real exemplars, then each method's images, as many as fit."""
    per_group = _group_size(artefacts)
    groups = []
    for product in artefacts.params.products:
        methods = {method: artefacts.types(product, method) for method in shard_methods(artefacts)}
        real = artefacts.types(product, SHOWN)
        for kind in dict.fromkeys([*real, *(kind for kinds in methods.values() for kind in kinds)]):
            if kind in real:
                groups.append(_real(artefacts, product, kind, per_group))
            for method in (method for method, kinds in methods.items() if kind in kinds):
                count = per_group if method == SHOWN else min(per_group, PER_PEER)
                groups.append(_generated(artefacts, method, product, kind, count))
    return groups


def _real(artefacts: Artefacts, product: str, kind: str, count: int) -> Group:
    rows = [row for row in artefacts.exemplars(product) if row.anomaly_type == kind]
    pictures = [picture for picture in (real_picture(artefacts, row) for row in rows) if picture]
    return Group(product, kind, "real", pictures[:count], [picture.area for picture in pictures], [])


def _generated(artefacts: Artefacts, method: str, product: str, kind: str, count: int) -> Group:
    rows = artefacts.generated(method, product, kind)
    quality = {row.sample_id: row for row in artefacts.quality(method, product) if row.anomaly_type == kind}
    pictures = [generated_picture(row, method, kind, quality.get(row.sample_id)) for row in spread_out(rows, count)]
    areas = [float((decode_image(row.mask["bytes"], "L", row.sample_id) > 127).mean()) for row in rows]
    intensities = [row.intensity for row in rows if row.intensity is not None]
    return Group(product, kind, method, pictures, areas, intensities)


def shard_methods(artefacts: Artefacts) -> list[str]:
    """The methods that have shards of their own, cadiff (which ``both`` trains on too) first."""
    first = [SHOWN] if WITH_SHOWN & set(artefacts.params.methods) else []
    return first + [method for method in artefacts.params.taking("quality") if method != SHOWN]


def _group_size(artefacts: Artefacts) -> int:
    """Images per group: as many as the budget allows, from 4 to 24."""
    params = artefacts.params
    exemplars = [row for product in params.products for row in artefacts.exemplars(product)]
    shapes = [shown_shape(*canvas_of(row, params.dataset.size)) for row in exemplars]
    costs = [height * width * (PNG_COST if max(height, width) <= EXACT_SIDE else JPEG_COST) for height, width in shapes]
    groups = sum(len(artefacts.types(product, SHOWN)) for product in params.products) * (1 + len(shard_methods(artefacts)))
    return int(np.clip(BUDGET // max(1.0, float(np.mean(costs or [1.0])) * groups), LEAST_PER_GROUP, PER_GROUP))
