"""Where synthesis masks come from."""

from cadiff.masks.foreground import foreground
from cadiff.masks.make import make_masks, masks_of_type

__all__ = ["foreground", "make_masks", "masks_of_type"]
