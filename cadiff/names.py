"""What products may be called, and what the learned tokens of their anomaly types are called then."""

from __future__ import annotations

import hashlib
import re

CONTEXT = "context"  # the concept that the product itself is, among its anomaly types
PRODUCT = re.compile(r"[^\W_][\w.+-]*")  # part of stage names, of files and of a command line; letters of any alphabet


def check_product(name: str) -> None:
    """A ValueError where a folder's name cannot be a product's."""
    if not PRODUCT.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a product: expected letters and digits, with ., _, + and - between them; rename its folder"
        )


def placeholder(product: str, concept: str) -> str:
    """A token's text: ``<nut-rust>``; letters, digits and dashes only, so that every tokenizer takes it whole.

    What is written in other letters keeps what it has of these, and six hex digits tell it from its like.
    """
    name = f"{product} {concept}"
    if not name.isascii():
        name += f" {hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return f"<{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}>"
