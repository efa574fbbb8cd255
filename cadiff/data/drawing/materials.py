"""Materials: albedo, relief and gloss over the whole square, named by the words that captions use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from cadiff.data.drawing.scene import COARSE, Field, bumps, grid, noise, resolved, rotate

COLOURS: dict[str, tuple[float, float, float]] = {
    "white": (0.88, 0.87, 0.84), "grey": (0.52, 0.52, 0.53), "black": (0.13, 0.13, 0.14), "red": (0.72, 0.16, 0.13),
    "orange": (0.85, 0.45, 0.12), "yellow": (0.86, 0.74, 0.22), "green": (0.20, 0.48, 0.25),
    "blue": (0.16, 0.30, 0.62), "brown": (0.42, 0.28, 0.18), "beige": (0.76, 0.67, 0.53),
    "purple": (0.42, 0.24, 0.52), "teal": (0.12, 0.46, 0.48), "pink": (0.86, 0.55, 0.60),
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """What stays the same over all pictures of one product: material, colour, grain."""

    material: str
    colour: str
    tint: tuple[float, float, float]
    grain: float  # fineness of the material's pattern, about 1
    angle: float  # direction of the grain, radians

    @classmethod
    def drawn(cls, rng: np.random.Generator, material: str | None = None, colour: str | None = None) -> Style:
        material = material or str(rng.choice(list(MATERIALS)))
        if colour is None:
            metal = material in ("metal", "steel")
            colour = str(rng.choice(["grey", "grey", "white", "yellow"] if metal else list(COLOURS)))
        tint = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 0.04, 3), 0.04, 0.95)
        red, green, blue = map(float, tint)
        return cls(material, colour, (red, green, blue), float(rng.uniform(0.75, 1.35)), float(rng.uniform(0, np.pi)))


@dataclass
class Surface:
    albedo: Field
    height: Field
    gloss: Field


def surface(rng: np.random.Generator, side: int, style: Style) -> Surface:
    """A fresh piece of the style's material, (side side)."""
    return MATERIALS[style.material](rng, side, style)


def _plain(side: int, tint: tuple[float, float, float]) -> Field:
    return np.broadcast_to(np.asarray(tint, np.float32), (side, side, 3)).copy()


def _tinted(side: int, style: Style, shade: Field) -> Field:
    tinted: Field = np.clip(_plain(side, style.tint) * (1 + shade)[..., None], 0, 1).astype(np.float32)
    return tinted


def _plastic(rng: np.random.Generator, side: int, style: Style) -> Surface:
    relief = noise(rng, side, 1.2)
    return Surface(_tinted(side, style, 0.02 * relief), bumps(relief, 0.002), np.full((side, side), 0.7, np.float32))


def _rubber(rng: np.random.Generator, side: int, style: Style) -> Surface:
    relief = noise(rng, side, 0.7)
    return Surface(_tinted(side, style, 0.05 * relief), bumps(relief, 0.006), np.full((side, side), 0.1, np.float32))


def _ceramic(rng: np.random.Generator, side: int, style: Style) -> Surface:
    cloud, specks = noise(rng, side, 2.2), noise(rng, side, 0.3) > 2.6
    albedo = _tinted(side, style, 0.05 * cloud) * (1 - 0.25 * specks[..., None])
    return Surface(albedo, 0.008 * cloud, np.full((side, side), 0.9, np.float32))


def _metal(rng: np.random.Generator, side: int, style: Style) -> Surface:
    brushed = noise(rng, side, 0.8, stretch=14, angle=style.angle)
    cloud = noise(rng, side, 1.8)
    return Surface(_tinted(side, style, 0.09 * brushed + 0.05 * cloud), bumps(brushed, 0.004), (0.55 + 0.2 * brushed).astype(np.float32))


def _steel(rng: np.random.Generator, side: int, style: Style) -> Surface:
    grain, cloud = noise(rng, side, 0.6), noise(rng, side, 1.9)
    return Surface(_tinted(side, style, 0.07 * grain + 0.09 * cloud), bumps(grain, 0.006), (0.4 + 0.1 * cloud).astype(np.float32))


def _stone(rng: np.random.Generator, side: int, style: Style) -> Surface:
    coarse, fine = noise(rng, side, 1.1), noise(rng, side, 0.2)
    shade = 0.14 * coarse + 0.12 * np.sign(fine) * (np.abs(fine) > 1.2)
    return Surface(_tinted(side, style, shade), bumps(coarse, 0.012), np.full((side, side), 0.15, np.float32))


def _wood(rng: np.random.Generator, side: int, style: Style) -> Surface:
    x, y = grid(side)
    _, across = rotate(x, y, style.angle)
    warp = noise(rng, side, 2.2, stretch=5, angle=style.angle)
    rings = np.sin((across * 9 * style.grain + 0.55 * warp) * np.pi)
    fibre = noise(rng, side, 0.7, stretch=16, angle=style.angle)
    return Surface(_tinted(side, style, 0.13 * rings + 0.07 * fibre), bumps(fibre, 0.004), np.full((side, side), 0.12, np.float32))


def _leather(rng: np.random.Generator, side: int, style: Style) -> Surface:
    cells = np.abs(ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.6 * max(1.0, side / COARSE) / style.grain))
    cells = np.clip(cells / cells.std(), 0, 2.2).astype(np.float32)
    return Surface(_tinted(side, style, 0.10 * (cells - 1)), 0.012 * cells, np.full((side, side), 0.25, np.float32))


def _fabric(rng: np.random.Generator, side: int, style: Style) -> Surface:
    x, y = grid(side)
    u, v = rotate(x, y, 0.02 * np.sin(style.angle))
    wave = 0.010 * noise(rng, side, 2.4)
    threads = 11 * style.grain
    pu, pv = (u + wave) * threads * np.pi, (v - wave) * threads * np.pi
    over = np.sin(pu) * np.sin(pv) > 0
    relief = np.where(over, np.abs(np.sin(pu)), np.abs(np.sin(pv))).astype(np.float32)
    fibre = noise(rng, side, 0.4)
    shade = 0.28 * (relief - 0.6) + 0.09 * over - 0.04 + 0.05 * fibre
    if seen := resolved(side, 0.16 / threads):
        shade = shade + seen * _yarn(rng, pu / np.pi, pv / np.pi, over)
    return Surface(_tinted(side, style, shade), 0.020 * relief, np.full((side, side), 0.08, np.float32))


def _yarn(rng: np.random.Generator, across: Field, along: Field, over: Field) -> Field:
    """What a closer look shows of threads: each a little lighter or darker than the next, and twisted. ``across``, ``along``: the
    number of the thread at each pixel; ``over``: whether the one that runs along is on top."""
    own = 0.045 * rng.standard_normal((2, 64))
    first, second = (own[k][np.floor(at).astype(int) % 64] for k, at in enumerate((across, along)))
    twist = np.where(over, np.sin((along * 2 + across) * 2 * np.pi), np.sin((across * 2 + along) * 2 * np.pi))
    yarn: Field = (np.where(over, first, second) + 0.07 * twist).astype(np.float32)
    return yarn


def _mesh(rng: np.random.Generator, side: int, style: Style) -> Surface:
    x, y = grid(side)
    u, v = rotate(x, y, style.angle)
    count = 4.5 * style.grain
    bars = np.maximum(np.cos(u * count * np.pi) ** 2, np.cos(v * count * np.pi) ** 2)
    solid = np.clip((bars - 0.72) * 8, 0, 1).astype(np.float32)
    albedo = _tinted(side, style, 0.06 * noise(rng, side, 1.0)) * (0.18 + 0.82 * solid[..., None])
    return Surface(albedo, 0.05 * solid, 0.4 * solid)


def _cardboard(rng: np.random.Generator, side: int, style: Style) -> Surface:
    fibre, cloud = noise(rng, side, 0.5, stretch=4, angle=style.angle), noise(rng, side, 1.7)
    return Surface(_tinted(side, style, 0.07 * fibre + 0.05 * cloud), bumps(fibre, 0.005), np.full((side, side), 0.03, np.float32))


@cache
def _photographed() -> tuple[Field, ...]:
    """scikit-image's CC0 textures (brick, grass, gravel), 256 px, zero mean, unit variance."""
    from skimage import data

    fields = []
    for picture in (data.brick(), data.grass(), data.gravel()):
        field = picture.reshape(256, 2, 256, 2).mean((1, 3)).astype(np.float32)
        fields.append((field - field.mean()) / field.std())
    return tuple(fields)


def _rough(rng: np.random.Generator, side: int, style: Style) -> Surface:
    source = _photographed()[int(rng.integers(3))]
    source = np.rot90(source, int(rng.integers(4)))
    if side > len(source):
        source = np.pad(source, (0, side - len(source)), mode="reflect")
    top, left = rng.integers(0, len(source) - side + 1, 2)
    piece = source[top : top + side, left : left + side]
    return Surface(_tinted(side, style, 0.16 * piece), bumps(piece, 0.008), np.full((side, side), 0.1, np.float32))


MATERIALS: dict[str, Callable[[np.random.Generator, int, Style], Surface]] = {
    "plastic": _plastic, "rubber": _rubber, "ceramic": _ceramic, "metal": _metal, "steel": _steel, "stone": _stone,
    "wood": _wood, "leather": _leather, "fabric": _fabric, "mesh": _mesh, "cardboard": _cardboard, "rough": _rough,
}  # fmt: skip
