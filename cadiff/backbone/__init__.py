"""Any latent diffusion model in diffusers' layout, the embedded one among them; nothing asks which one it is."""

from cadiff.backbone.attention import CrossAttentionTap, attention_layers, recompute
from cadiff.backbone.load import EMBEDDED, Backbone, load_backbone, load_words

__all__ = ["EMBEDDED", "Backbone", "CrossAttentionTap", "attention_layers", "load_backbone", "load_words", "recompute"]
