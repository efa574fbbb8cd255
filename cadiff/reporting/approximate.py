"""What rests on masks that stem from boxes, by the rows that say so."""

from __future__ import annotations

import pyarrow.compute as pc

from cadiff.reporting.artefacts import Artefacts
from cadiff.reporting.comparing import counted


def approximate_said(artefacts: Artefacts) -> list[str]:
    """A sentence for each product some of whose masks are approximate: how many of what it is learned from, of what is generated and of
    what it is scored on, and whether figures rest on them."""
    said = []
    for product in artefacts.params.products:
        rows = [row for row in artefacts.samples(product) if row.role in ("exemplar", "held_out")]
        learned, scored = ([row for row in rows if row.role == role] for role in ("exemplar", "held_out"))
        made = _generated(artefacts, product)
        if any(row.approximate for row in rows) or any(made):
            of_made = f", {sum(made)} of {len(made):,} generated anomalies" if any(made) else ""
            said.append(
                f"{product}: masks that stem from boxes, and so are approximate, are {sum(row.approximate for row in learned)} of "
                f"{counted(len(learned), 'exemplar')}{of_made} and {sum(row.approximate for row in scored)} of "
                f"{len(scored)} held-out anomalies. {_rests(artefacts, product)}"
            )
    return said


def _generated(artefacts: Artefacts, product: str) -> list[bool]:
    """Of each generated anomaly, of all methods, whether its mask is approximate."""
    kinds = [(method, kind) for method in artefacts.params.methods for kind in artefacts.types(product, method)]
    return [one for method, kind in kinds for one in artefacts.approximate(method, product, kind)]


def _rests(artefacts: Artefacts, product: str) -> str:
    tables = [artefacts.metrics(method, product) for method in artefacts.params.methods]
    if any(pc.any(table["approximate"]).as_py() for table in tables):
        return (
            "Its pixel figures rest on them: they tell sources of images apart, not how exactly a defect’s edge is found. Figures of whole "
            "images do not."
        )
    return "None of its figures is measured against one; its detectors learn from them."
