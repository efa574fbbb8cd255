"""Where prompt, control and intensity meet: adaptation, joint training, and sampling of one product's anomalies."""

from cadiff.generator.adapt import adapt_base, load_adapted
from cadiff.generator.shards import generate_shards
from cadiff.generator.train import Generator, load_generator, train_generator

__all__ = ["Generator", "adapt_base", "generate_shards", "load_adapted", "load_generator", "train_generator"]
