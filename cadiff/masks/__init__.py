"""Where synthesis masks come from."""

from cadiff.masks.foreground import foreground
from cadiff.masks.make import make_masks, mask_of, masks_of_type, placed_mask

__all__ = ["foreground", "make_masks", "mask_of", "masks_of_type", "placed_mask"]
