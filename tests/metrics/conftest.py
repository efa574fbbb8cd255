"""Imports the package first: that makes torchvision, and so torchmetrics, importable beside a CPU torch."""

import cadiff  # noqa: F401
