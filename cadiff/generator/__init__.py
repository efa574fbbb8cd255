"""Where prompt, control and intensity meet: adaptation, joint training, and the drawing of one product's scenes."""

from cadiff.generator.adapt import adapt_base, load_adapted
from cadiff.generator.draw import Drawn, draw_scenes
from cadiff.generator.methods import GENERATORS, load_generator, settings_of, train_generator
from cadiff.generator.model import Generator
from cadiff.generator.shards import generate_shards, generated_row
from cadiff.generator.validation import gather as gather_validation

__all__ = [
    "GENERATORS", "Drawn", "Generator", "adapt_base", "draw_scenes", "gather_validation", "generate_shards", "generated_row",
    "load_adapted", "load_generator", "settings_of", "train_generator",
]  # fmt: skip
