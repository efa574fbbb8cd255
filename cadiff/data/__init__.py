"""Real images: layouts on disk to rows, the split, batches and augmentation."""

from cadiff.data.augment import augment_batch, augment_pair
from cadiff.data.images import make_batch, to_tensor, to_uint8
from cadiff.data.inspect import Inspection, inspect_root
from cadiff.data.readers import list_products, read_samples

__all__ = [
    "Inspection", "augment_batch", "augment_pair", "inspect_root", "list_products", "make_batch", "read_samples", "to_tensor", "to_uint8",
]  # fmt: skip
