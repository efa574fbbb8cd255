"""Products: a style that stays, a pose and marks that vary. Four of them are the demo; the rest is drawn at random."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cadiff.data.drawing.defects import DEFECTS, harmless
from cadiff.data.drawing.materials import Style, Surface, surface
from cadiff.data.drawing.scene import Field, Light, Scene, blend, develop, finer, grid, noise, oversampling, resolved, rotate, soft
from cadiff.data.drawing.shapes import SHAPES, bevel, box, capsule, drilled, lettering, placed, polygon, silhouette_of

Build = Callable[[np.random.Generator, int], Scene]
LEAST = {2: 0.002, 1: 0.0004}  # of a picture, by its oversampling: a smaller defect fell off the edge. 8 px of 64 x 64, 26 of 256 x 256


@dataclass(frozen=True)
class Product:
    """``build`` draws a fresh good part; ``words`` name it in captions; ``kinds`` are its own defects, by type."""

    words: str
    build: Build
    kinds: dict[str, Callable[[Scene, np.random.Generator], None]] = field(default_factory=dict)
    vary: float = 1.0  # how much the light changes from picture to picture


def draw(product: Product, rng: np.random.Generator, size: int, kind: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A picture of the product (uint8, size size 3) and its mask (bool, size size); ``kind`` None: a good part.

    A defect that leaves no mark (it fell off the edge) is drawn again.
    """
    k = oversampling(size)
    for _ in range(20):
        scene = product.build(rng, size * k)
        harmless(scene, rng)
        if kind is not None:
            (product.kinds.get(kind) or DEFECTS[kind])(scene, rng)
        picture, mask = develop(scene, Light.drawn(rng, product.vary), rng, k)
        if kind is None or mask.sum() >= LEAST[k] * size * size:
            return picture, mask
    raise RuntimeError(f"{product.words}: twenty drawings of {kind} left no mark")


def texture(words: str, style: Style) -> Product:
    """A surface that fills the picture."""

    def build(rng: np.random.Generator, side: int) -> Scene:
        piece = surface(rng, side, style)
        everywhere = np.ones((side, side), bool)
        return Scene(piece.albedo, piece.height, piece.gloss, everywhere, np.zeros((side, side), bool))

    return Product(words, build)


def on_ground(ground: Style, rng: np.random.Generator, side: int) -> Scene:
    """An empty bench, to put an object on."""
    piece = surface(rng, side, ground)
    empty = np.zeros((side, side), bool)
    return Scene(piece.albedo, 0.3 * piece.height, 0.3 * piece.gloss, empty, empty.copy())


def put(scene: Scene, distance: np.ndarray, piece: tuple[np.ndarray, np.ndarray, np.ndarray], rise: float, width: float) -> None:
    """Puts a body with rounded edges (a signed distance and its albedo, relief, gloss) on the scene."""
    alpha = soft(distance, finer(scene.side, 0.02))
    scene.albedo = blend(scene.albedo, piece[0], alpha)
    scene.height = blend(scene.height, piece[1] + bevel(distance, rise, width), alpha)
    scene.gloss = blend(scene.gloss, piece[2], alpha)
    scene.silhouette = scene.silhouette | (alpha > 0.5)


@dataclass(frozen=True)
class Pose:
    centre: tuple[float, float]
    angle: float
    scale: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, shift: float, turn: float, size: float) -> Pose:
        return cls((rng.uniform(-shift, shift), rng.uniform(-shift, shift)), rng.uniform(-turn, turn), 1 + rng.uniform(-size, size))

    def seen(self, x: Field, y: Field) -> tuple[Field, Field]:
        """The picture's coordinates in the product's own frame."""
        return rotate((x - self.centre[0]) / self.scale, (y - self.centre[1]) / self.scale, self.angle)


def part(words: str, shape: str, body: Style, ground: Style, proportions: np.ndarray, turn: float, inlay: Style | None) -> Product:
    """An object of one shape, perhaps with an inlay of another material, on a bench."""
    silhouette = silhouette_of(shape, proportions)

    def build(rng: np.random.Generator, side: int) -> Scene:
        scene, (x, y) = on_ground(ground, rng, side), grid(side)
        pose = Pose.drawn(rng, 0.08, turn, 0.05)
        distance = placed(silhouette, x, y, pose.centre, pose.angle, pose.scale)
        made = surface(rng, side, body)
        put(scene, distance, (made.albedo, made.height, made.gloss), 0.06 + 0.12 * proportions[3], 0.06 + 0.15 * proportions[2])
        if inlay is not None:
            inner = distance + 0.16 + 0.08 * proportions[1]
            made = surface(rng, side, inlay)
            alpha = soft(inner, 0.02)
            scene.albedo, scene.gloss = blend(scene.albedo, made.albedo, alpha), blend(scene.gloss, made.gloss, alpha)
            scene.height = scene.height - 0.03 * alpha
        return scene

    return Product(words, build)


def array(words: str, body: Style, ground: Style, proportions: np.ndarray) -> Product:
    """Several equal small parts in rows: pins, tablets, bores."""
    rows, columns = 1 + round(2 * proportions[0]), 2 + round(2 * proportions[1])
    radius = 0.5 / max(rows, columns) * (0.6 + 0.3 * proportions[2])

    def build(rng: np.random.Generator, side: int) -> Scene:
        scene, (x, y) = on_ground(ground, rng, side), grid(side)
        pose = Pose.drawn(rng, 0.06, 0.12, 0.04)
        u, v = pose.seen(x, y)
        made = surface(rng, side, body)
        pitch = 1.5 / max(rows, columns)
        for row in range(rows):
            for column in range(columns):
                du, dv = u - (column - (columns - 1) / 2) * pitch, v - (row - (rows - 1) / 2) * pitch
                square = proportions[3] > 0.5
                distance = box(du, dv, radius, radius, 0.04) if square else np.hypot(du, dv) - radius
                put(scene, distance, (made.albedo, made.height, made.gloss), 0.08, 0.08)
        return scene

    return Product(words, build)


def random_product(rng: np.random.Generator) -> Product:
    """A product that nobody makes: material, colour, shape, proportions and bench drawn at random."""
    benches = ["plastic", "rubber", "steel", "cardboard", "stone", "fabric", "wood"]
    body, ground = Style.drawn(rng), Style.drawn(rng, str(rng.choice(benches)))
    kind, proportions = rng.random(), rng.random(4)
    if kind < 0.35:
        return texture(f"{body.colour} {body.material} surface", body)
    if kind < 0.85:
        shape = str(rng.choice(SHAPES))
        inlay = Style.drawn(rng) if rng.random() < 0.25 else None
        turn = float(rng.choice([0.06, 0.4, np.pi]))
        return part(f"{body.colour} {body.material} {shape}", shape, body, ground, proportions, turn, inlay)
    return array(f"{body.colour} {body.material} pins", body, ground, proportions)


def _fabric() -> Product:
    style = Style("fabric", "teal", (0.22, 0.40, 0.46), 1.0, 0.6)
    made = texture("woven fabric", style)
    return Product(made.words, made.build, {kind: DEFECTS[kind] for kind in ("hole", "stain", "thread")})


def _capsule() -> Product:
    ground = Style("plastic", "white", (0.82, 0.83, 0.84), 1.0, 0.0)
    cap, body = Style("plastic", "red", (0.66, 0.14, 0.12), 1.0, 0.0), Style("plastic", "beige", (0.86, 0.80, 0.66), 1.0, 0.0)

    def build(rng: np.random.Generator, side: int) -> Scene:
        scene, (x, y) = on_ground(ground, rng, side), grid(side)
        pose = Pose.drawn(rng, 0.08, np.pi, 0.04)
        u, v = pose.seen(x, y)
        left, right = surface(rng, side, body), surface(rng, side, cap)
        seam = soft(u - 0.02, finer(side, 0.02))
        albedo = blend(right.albedo, left.albedo, seam)
        albedo = albedo * (1 - 0.25 * soft(np.abs(u - 0.02) - finer(side, 0.015), finer(side, 0.02)))[..., None]
        ink = 0.85 * resolved(side, 0.02) * lettering(u + 0.30, v + 0.02, "N 250", 0.16)
        albedo = blend(albedo, np.array([0.22, 0.20, 0.26]), ink)
        put(scene, capsule(u, v, 0.42, 0.30 - 0.008 * (u < 0.02)) * pose.scale, (albedo, left.height, left.gloss), 0.26, 0.30)
        return scene

    return Product("two colour capsule", build, {kind: DEFECTS[kind] for kind in ("crack", "dent", "print")})


def _nut() -> Product:
    ground = Style("rubber", "black", (0.16, 0.17, 0.19), 1.0, 0.0)

    def build(rng: np.random.Generator, side: int) -> Scene:
        scene, (x, y) = on_ground(ground, rng, side), grid(side)
        pose = Pose.drawn(rng, 0.06, np.pi, 0.04)
        u, v = pose.seen(x, y)
        made = surface(rng, side, Style("metal", "grey", (0.58, 0.58, 0.57), 1.0, pose.angle))
        body = drilled(np.maximum(polygon(u, v, 6, 0.62), np.hypot(u, v) - 0.68), u, v, 0.29)
        put(scene, body * pose.scale, (made.albedo, made.height, made.gloss), 0.12, 0.09)
        thread = np.sin(np.hypot(u, v) * 110) * (np.abs(np.hypot(u, v) - 0.32) < 0.05)
        scene.height = scene.height + 0.006 * thread
        face = soft(np.abs(np.hypot(u, v) - 0.50) - finer(side, 0.008), finer(side, 0.02))
        scene.albedo = blend(scene.albedo, scene.albedo * 0.7, face * scene.silhouette)
        stamped = resolved(side, 0.02) * lettering(u, v + 0.41, "8.8", 0.13)
        scene.albedo, scene.height = blend(scene.albedo, scene.albedo * 0.6, 0.7 * stamped), scene.height - 0.02 * stamped
        return scene

    return Product("metal nut", build, {kind: DEFECTS[kind] for kind in ("scratch", "rust", "chip")})


_PINS = [(column, row) for row in range(2) for column in range(3)]


def _pin_at(scene: Scene, pose: Pose, column: float, row: float, lean: float = 0.0) -> np.ndarray:
    """The signed distance of one pin of the connector."""
    u, v = pose.seen(*grid(scene.side))
    du, dv = rotate(u - (column - 1) * 0.40, v - (row - 0.5) * 0.52, lean)
    return box(du, dv, 0.085, 0.15, 0.04) * pose.scale


GOLD = Style("metal", "yellow", (0.83, 0.66, 0.25), 1.0, np.pi / 2)


def _put_pin(scene: Scene, made: Surface, distance: np.ndarray) -> None:
    scene.albedo = scene.albedo * (1 - 0.45 * soft(distance - 0.05, 0.08))[..., None]
    put(scene, distance, (made.albedo, made.height, made.gloss), 0.10, 0.07)


def _connector() -> Product:
    """Six gold pins in a black housing; a pin may be missing, bent, or joined to its neighbour by solder."""
    ground = Style("cardboard", "beige", (0.62, 0.64, 0.60), 1.0, 0.0)
    housing = Style("plastic", "black", (0.15, 0.16, 0.18), 1.0, 0.0)

    def body(rng: np.random.Generator, side: int) -> tuple[Scene, Pose]:
        scene, (x, y) = on_ground(ground, rng, side), grid(side)
        pose = Pose.drawn(rng, 0.05, 0.10, 0.03)
        u, v = pose.seen(x, y)
        made = surface(rng, side, housing)
        put(scene, box(u, v, 0.72, 0.62, 0.10) * pose.scale, (made.albedo, made.height, made.gloss), 0.14, 0.10)
        notch = soft(box(u, v + 0.62, 0.16, 0.08, 0.03), finer(side, 0.02))
        scene.albedo, scene.height = blend(scene.albedo, np.array(0.06), notch * 0.7), scene.height - 0.06 * notch
        for column in range(3):  # the pins' numbers, printed between the rows
            ink = 0.7 * resolved(side, 0.02) * lettering(u - (column - 1) * 0.40, v, f"{column + 1}", 0.11)
            scene.albedo = blend(scene.albedo, np.array([0.72, 0.73, 0.72]), ink)
        return scene, pose

    def build_with(rng: np.random.Generator, side: int) -> Scene:
        scene, pose = body(rng, side)
        bare = copy.deepcopy(scene)
        metal = surface(rng, side, GOLD)
        for column, row in _PINS:
            _put_pin(scene, metal, _pin_at(scene, pose, column, row))
        scene.__dict__["bare"], scene.__dict__["pose"] = bare, pose  # what the logical defects take away or move
        return scene

    def take_out(scene: Scene, rng: np.random.Generator) -> tuple[int, int]:
        column, row = _PINS[rng.integers(len(_PINS))]
        bare, distance = scene.__dict__["bare"], _pin_at(scene, scene.__dict__["pose"], column, row)
        cleared = soft(distance - 0.05, 0.02)
        for name in ("albedo", "height", "gloss"):
            setattr(scene, name, blend(getattr(scene, name), getattr(bare, name), cleared))
        slot = soft(distance + 0.03, 0.02)
        scene.albedo, scene.height = blend(scene.albedo, np.array(0.03), slot * 0.8), scene.height - 0.05 * slot
        mark = soft(distance - 0.02, 0.01)
        scene.defect |= mark > 0.3
        return column, row

    def missing(scene: Scene, rng: np.random.Generator) -> None:
        take_out(scene, rng)

    def bent(scene: Scene, rng: np.random.Generator) -> None:
        column, row = take_out(scene, rng)
        shift = rng.choice([-1, 1]) * rng.uniform(0.15, 0.3)
        lean = float(np.sign(shift) * rng.uniform(0.3, 0.9))
        distance = _pin_at(scene, scene.__dict__["pose"], column + shift, row + rng.uniform(-0.1, 0.1), lean)
        _put_pin(scene, surface(rng, scene.side, GOLD), distance)
        scene.defect |= soft(distance - 0.02, 0.01) > 0.3

    def bridge(scene: Scene, rng: np.random.Generator) -> None:
        column, row = int(rng.integers(2)), int(rng.integers(2))
        pose, (x, y) = scene.__dict__["pose"], grid(scene.side)
        u, v = pose.seen(x, y)
        wave = 0.025 * noise(rng, scene.side, 2.0)
        lift = rng.uniform(-0.08, 0.08)
        distance = box(u - (column - 0.5) * 0.40, v - (row - 0.5) * 0.52 - lift, 0.20, rng.uniform(0.05, 0.10), 0.05) + wave
        made = surface(rng, scene.side, Style("steel", "grey", (0.66, 0.67, 0.68), 1.0, 0.0))
        put(scene, distance, (made.albedo, made.height, np.clip(made.gloss + 0.4, 0, 1)), 0.06, 0.06)
        scene.defect |= soft(distance, 0.02) > 0.3

    return Product("connector with gold pins", build_with, {"missing_pin": missing, "bent_pin": bent, "solder_bridge": bridge})


DEMO: dict[str, Product] = {"fabric": _fabric(), "capsule": _capsule(), "nut": _nut(), "connector": _connector()}
