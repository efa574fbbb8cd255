"""What is measured on: sizes, a base that a stock pipeline takes too, a drawn product, and shards of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cadiff.backbone import EMBEDDED
from cadiff.data import read_samples
from cadiff.data.demo import draw_product
from cadiff.params import DrawParams, Params, load_params
from cadiff.pictures import read_picture
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, SampleRow, to_table
from cadiff.storage import encode_png, sha256_bytes, write_table

ROOT = Path(__file__).resolve().parents[2]
PRODUCT, METHOD = "nut", "cadiff"


@dataclass(frozen=True)
class Scale:
    """How much of everything; the demo's own sizes, but for the numbers of images and steps that only take time."""

    dtypes: tuple[str, ...] = ("auto", "float32")  # base.dtype
    images: int = 16  # that are drawn at a time
    steps: int = 10  # of DPM-Solver++, as the demo takes
    many_steps: int = 50  # of DDIM, as the paper takes
    matrix: int = 2048  # side of the matrices whose product is the machine's limit
    batch: int = 16  # of a training step
    train_steps: int = 3
    detector_steps: int = 8
    detector_size: int = 128
    pictures: int = 48  # that a detector sees, and that are read, written and judged
    normals: int = 24
    per_type: int = 9  # pictures of each defect that are drawn, of which a third are exemplars
    canvas: int = 256
    counts: tuple[int, ...] = (100, 1_000, 10_000)  # images, where they are cheap
    judged: tuple[int, ...] = (100, 400)  # images, where each costs tens of milliseconds
    exemplars: tuple[int, ...] = (3, 12)  # of each type
    placed: int = 8  # masks of each type
    products: tuple[int, ...] = (1, 5, 15)
    canvases: tuple[int, ...] = (256, 1024, 4096)
    canvas_images: int = 6


FULL = Scale()
QUICK = Scale(
    dtypes=("float32",),
    images=2, steps=2, many_steps=3, matrix=128, batch=2, train_steps=1, detector_steps=1, detector_size=64, pictures=4, normals=4,
    per_type=3, canvas=64, counts=(10, 20), judged=(4, 8), exemplars=(1, 2), placed=1, products=(1, 2), canvases=(96, 128), canvas_images=2,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Where a measurement works: its sizes, how often it measures, and a folder that all of them share, one at a time."""

    scale: Scale
    repeat: int
    folder: Path

    def params(self, dtype: str = "auto") -> Params:
        """The demo's parameters on the drawn product and on the base that both sides take."""
        values, scale = load_params(ROOT / "presets" / "demo.yaml").model_dump(), self.scale
        changes: dict[str, dict[str, object]] = {
            "dataset": {"root": str(self.folder / "drawn"), "size": scale.canvas},
            "base": {"path": str(stock_base(self.folder / "base")), "device": "cpu", "dtype": dtype},
            "train": {"batch": scale.batch},
            "generate": {"steps": scale.steps, "per_type": scale.placed},
            "detector": {"size": scale.detector_size, "seeds": [0]},
        }  # fmt: skip
        for section, own in changes.items():
            values[section] |= own
        return Params(**{**values, "products": {PRODUCT: {}}, "draw": {**values["draw"], "products": [PRODUCT]}}).for_product(PRODUCT)

    def samples(self, params: Params, per_type: int | None = None) -> list[SampleRow]:
        """The drawn product's, drawn once; ``per_type`` of each defect in a folder of its own."""
        draw = DrawParams(normals=self.scale.normals, test_good=2, anomalies_per_type=per_type or self.scale.per_type)
        root = self.folder / ("drawn" if per_type is None else f"drawn-{per_type}")
        if not (root / PRODUCT).is_dir():
            draw_product(draw, PRODUCT, 0, root / PRODUCT, self.scale.canvas)
        return read_samples(params.dataset.model_copy(update={"root": str(root)}), PRODUCT)

    def shards(self, params: Params, samples: list[SampleRow]) -> Path:
        """A folder with ``scale.pictures`` generated images, of each type alike: as what is generated is kept, but of no generator."""
        out = self.folder / "shards"
        if not out.is_dir():
            for kind, rows in generated(params, samples, self.scale.pictures).items():
                write_table(out / f"{kind}.parquet", to_table(rows, GENERATED_SCHEMA))
        return out


def stock_base(folder: Path) -> Path:
    """The embedded base with an AutoencoderKL of the same latents in the place of its own, which stock pipelines do not take.

    Its weights are random and its decoder is small: both sides pay for it alike, and speed does not depend on what it learnt.
    """
    if folder.is_dir():
        return folder
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    channels = int(UNet2DConditionModel.load_config(EMBEDDED, subfolder="unet")["in_channels"])
    unfinished = folder.with_suffix(".work")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(EMBEDDED, unfinished, ignore=shutil.ignore_patterns("vae", "card.json"))
    torch.manual_seed(0)
    widths = (16, 32, 64)  # two halvings, as the embedded one's
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=widths,
        layers_per_block=1, latent_channels=channels, norm_num_groups=16, sample_size=64, scaling_factor=1.0,
    ).save_pretrained(unfinished / "vae")  # fmt: skip
    unfinished.rename(folder)
    return folder


def generated(params: Params, samples: list[SampleRow], count: int) -> dict[str, list[GeneratedRow]]:
    """``count`` rows of the product's own defective pictures, types in turn; from the second round on the pictures come again.

    Each names a normal that it is set in, so that what is judged by that is judged.
    """
    normals = [row.sample_id for row in samples if row.role == "normal"]
    shown = list(_shown([row for row in samples if row.anomaly_type], params))
    found: dict[str, list[GeneratedRow]] = {}
    for index in range(count):
        kind, image, mask = shown[index % len(shown)]
        found.setdefault(kind, []).append(generated_row(f"{PRODUCT}/{kind}/{index:05d}", kind, image, mask, normals[index % len(normals)]))
    return found


def _shown(rows: list[SampleRow], params: Params) -> Iterator[tuple[str, bytes, bytes]]:
    by_type: dict[str, list[SampleRow]] = {}
    for row in rows:
        by_type.setdefault(str(row.anomaly_type), []).append(row)
    for together in zip(*by_type.values(), strict=True):
        for row in together:
            picture = read_picture(row, params.dataset.size)
            yield str(row.anomaly_type), encode_png(picture.image), encode_png(picture.mask.astype("uint8") * 255)


def generated_row(name: str, kind: str, image: bytes, mask: bytes, normal: str) -> GeneratedRow:
    return GeneratedRow(
        sample_id=name, product=PRODUCT, anomaly_types=[kind], image={"bytes": image, "path": f"{name}.png"},
        mask={"bytes": mask, "path": f"{name}_mask.png"}, mask_source="drawn", prompt=None, intensity=1.0, seed=0, steps=None,
        guidance_scale=None, focus_step=None, normal_id=normal, exemplar_ids=[None], base_digest=None, generator_digest=None,
        params_digest="", image_sha256=sha256_bytes(image), attempts=1,
    )  # fmt: skip


__all__ = ["FULL", "METHOD", "PRODUCT", "QUICK", "ROOT", "Scale", "Setting", "generated", "generated_row", "stock_base"]
