"""What rests on masks that stem from boxes."""

from __future__ import annotations

from cadiff.reporting.artefacts import Artefacts
from cadiff.reporting.comparing import counted


def approximate_said(artefacts: Artefacts) -> list[str]:
    """A sentence for each product some of whose masks are approximate: how many of what it is learned from and scored on."""
    said = []
    for product in artefacts.params.products:
        rows = [row for row in artefacts.samples(product) if row.role in ("exemplar", "held_out")]
        learned, scored = ([row for row in rows if row.role == role] for role in ("exemplar", "held_out"))
        if any(row.approximate for row in rows):
            said.append(
                f"{product}: masks that stem from boxes, and so are approximate, are {sum(row.approximate for row in learned)} of "
                f"{counted(len(learned), 'exemplar')} and {sum(row.approximate for row in scored)} of "
                f"{len(scored)} held-out anomalies. Its pixel figures rest on them: they tell sources of "
                "images apart, not how exactly a defect’s edge is found. Figures of whole images do not."
            )
    return said
