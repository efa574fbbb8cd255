"""A repository with a product that was trained for a few steps on the tiny base: what `cadiff generate` needs."""

from pathlib import Path

import pytest
import yaml
from base import write_tiny_base  # noqa: F401  (makes torchvision importable first)
from conftest import SMALL

from cadiff.generator import adapt_base, train_generator
from cadiff.params import Params
from cadiff.records import SAMPLE_SCHEMA, SampleRow, to_table
from cadiff.storage import write_table
