"""Other ways to make anomalies, behind the same shards as the diffusion model's."""

from cadiff.synthesis.make import synthesize

__all__ = ["synthesize"]
