"""What products and anomaly types may be called, and what the learned tokens of a product's types are called then."""

from __future__ import annotations

import hashlib
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

CONTEXT = "context"  # the concept that the product itself is, among its anomaly types
GOOD = "good"  # the folder of normal images
UNKNOWN = "anomaly"  # the type of a mask that no exemplar gave
LONGEST = 100  # bytes of a name: a file's name has 255, and holds stage, product, method and a digest


def check_product(name: str) -> None:
    """A ValueError where a folder's name cannot be a product's.

    It is a part of stage names, of files, of a command line and of a dotted key (``products.NAME``), in which a dot would part it.
    Letters are those of any alphabet, composed (NFC) as ``params.yaml`` has them.
    """
    if decomposed := _composition(name):
        raise ValueError(decomposed)
    signs = {"_", "+", "-"}
    fits = name[:1].isalnum() and all(sign.isalnum() or sign in signs or unicodedata.category(sign)[0] == "M" for sign in name)
    if not fits:
        raise ValueError(f"{name!r} cannot name a product: expected letters and digits, with _, + and - between them; rename its folder")
    _check_length(name, "a product")


def check_products(products: Sequence[str], methods: Iterable[str]) -> None:
    """A ValueError where one product's name is another's with a method: ``nut`` has a stage ``train@nut-cadiff``."""
    for method in methods:
        for name in products:
            if f"{name}-{method}" in products:
                raise ValueError(
                    f"{name}-{method} cannot be told from the method {method} of the product {name}; rename one of the two products"
                )


def check_type(name: str) -> None:
    """A ValueError where a name cannot be an anomaly type's: it is a file's, and ``+`` joins the types of one image."""
    if decomposed := _composition(name):
        raise ValueError(decomposed)
    if name == GOOD or not name or name != name.strip() or name.startswith(".") or not name.isprintable() or re.search(r"[+/\\]", name):
        expected = f"expected a name other than {GOOD}, without /, \\ and +, and no dot in front"
        raise ValueError(f"{name!r} names no anomaly type: {expected}; rename it")
    if name == CONTEXT:
        raise ValueError(f"an anomaly type cannot be named {name!r}, as the product's own token is; rename it")
    _check_length(name, "an anomaly type")


def _check_length(name: str, what: str) -> None:
    if (length := len(name.encode())) > LONGEST:
        raise ValueError(f"{name[:20]!r}... cannot name {what}: expected at most {LONGEST} bytes, found {length}; rename it")


def composed(name: str) -> str:
    """A name in the form in which names are compared (NFC): macOS may have written a letter and its sign apart."""
    return unicodedata.normalize("NFC", name)


def _composition(name: str) -> str | None:
    """What is wrong with a name whose letters and signs are apart, with the call that mends it, as the two look the same."""
    if name == composed(name):
        return None
    bytewise = "".join(chr(byte) if 32 < byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}" for byte in name.encode())
    return (
        f"{name!r} has letters and their signs apart (NFD, as macOS writes them), where params.yaml has them in one (NFC), which looks "
        f"the same; rename it: mv $'{bytewise}' {shlex.quote(composed(name))}"
    )


def placeholder(product: str, concept: str) -> str:
    """A token's text: ``<nut-rust>``; letters, digits and dashes only, so that every tokenizer takes it whole.

    What is written in other letters keeps what it has of these, and six hex digits tell it from its like.
    """
    name = f"{product} {concept}"
    if not name.isascii():
        name += f" {hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return f"<{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}>"
