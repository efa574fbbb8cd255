"""``cadiff cut``: a data set with files of several pages, scans that are too long or transparent pictures as one without, in MVTec AD's
layout. What needs no cutting is copied byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cadiff.cutting.backgrounds import Colour
from cadiff.cutting.product import ProductCut
from cadiff.data.guess import guess_layout
from cadiff.data.new_root import check_new_root, staged
from cadiff.data.pieces import TABLE
from cadiff.data.problems import said_once
from cadiff.data.readers import READERS, list_products
from cadiff.errors import UsageError
from cadiff.params import TABLES, DatasetParams, Layout
from cadiff.progress import Progress

SHOWN = 20  # problems that are told one by one


@dataclass
class Done:
    """What a cut made, by product."""

    products: dict[str, ProductCut] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The cut as lines for a terminal."""
        for name, product in self.products.items():
            told = ", ".join(f"{count} {what}" for what, count in product.counts.items())
            yield f"{name}: {told or 'no pictures'}"
            if product.laid:
                colour = ",".join(f"{value:g}" for value in product.laid)
                yield f"  transparent pictures are laid on {colour}" + ("" if product.given else ", as what borders its opaque normals is")
            if product.paged:
                yield (
                    f"  pages of one file are taken to show one part, and so are all learned from or all held out; where they show "
                    f"different parts, remove their lines from {name}/{TABLE}"
                )


def cut_root(root: Path, out: Path, layout: Layout | None = None, background: Colour | None = None) -> Done:
    """Writes ``out/PRODUCT/{train,test}/good``, ``test/<type>`` and ``ground_truth/<type>``, whole or not at all, and in
    ``out/PRODUCT/pieces.csv`` what was one picture. What `cadiff inspect` names as not read stays behind.

    Raises:
        UsageError: names every problem, up to ``SHOWN``, that cutting does not mend.
        CADiffError: if the disk does not take it.
    """
    layout = layout or guess_layout(root)
    dataset = DatasetParams(name=root.name, layout=layout, root=str(root), table=TABLES.get(layout, "."), max_normals=None)
    check_new_root(out, (root,))
    done, problems = Done(), list[str]()
    with staged(out) as place:
        for product in list_products(dataset):
            listing = READERS[layout].list_files(root, product)
            made = done.products[product] = ProductCut(root / product, place / product, listing.entries, background)
            problems += listing.problems
            bar = Progress(f"cut {product}", len(listing.entries))
            for entry in listing.entries:
                made.add(entry)
                bar.advance()
            problems += made.finish()
        if problems := said_once(problems):
            more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
            first = f"{root}: {len(problems)} problems that cutting does not mend, so that nothing is written"
            raise UsageError("\n  ".join([first, *problems[:SHOWN], *more]))
    return done
