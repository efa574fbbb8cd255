"""What is asked of one product, as every function of the pipeline takes it first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cadiff.params import Params
from cadiff.records import SampleRow


@dataclass(frozen=True)
class Task:
    """One method on one product.

    - ``params``: the product's own, as ``Params.for_product`` gives them.
    - ``method``: empty where the work is the product's, whatever the method.
    - ``samples``: the product's rows; empty where what was trained is only loaded.

    Raises:
        ValueError: if the parameters still have settings of the product's own beside them, which would be left out in silence.
    """

    params: Params
    product: str
    method: str = ""
    samples: Sequence[SampleRow] = ()

    def __post_init__(self) -> None:
        if own := self.params.products.get(self.product):
            raise ValueError(f"{self.product}: expected its own parameters, found its {', '.join(own)} apart; pass params.for_product")
