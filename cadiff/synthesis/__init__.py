"""Other ways to make anomalies, behind the same shards as the diffusion model's."""

from cadiff.synthesis.folder import import_folder
from cadiff.synthesis.make import synthesize

__all__ = ["import_folder", "synthesize"]
