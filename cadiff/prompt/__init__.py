"""CTP: learnable tokens for the product and its defects, and the losses that keep them apart (Eq. 2-8)."""

from cadiff.prompt.losses import contrastive_loss, localizing_loss
from cadiff.prompt.tokens import CONTEXT, LearnedTokens, PlainWords, Prompt, placeholder

__all__ = ["CONTEXT", "LearnedTokens", "PlainWords", "Prompt", "contrastive_loss", "localizing_loss", "placeholder"]
