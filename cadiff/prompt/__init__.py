"""CTP: learnable tokens for the product and its defects, and the losses that keep them apart (Eq. 2-8)."""

from cadiff.names import CONTEXT, placeholder
from cadiff.prompt.losses import attention_of, contrastive_loss, localizing_loss, spread
from cadiff.prompt.tokens import EMPTY, LearnedTokens, PlainWords, Prompt, longest_prompt

__all__ = [
    "CONTEXT", "EMPTY", "LearnedTokens", "PlainWords", "Prompt", "attention_of", "contrastive_loss", "localizing_loss", "longest_prompt",
    "placeholder", "spread",
]  # fmt: skip
