"""Typed parameters, and the only reader of YAML. Unknown keys are errors; every section is one pydantic model, whose defaults are one
configuration (``presets/own-data.yaml``)."""

from cadiff.params.base import BaseParams, WindowParams
from cadiff.params.checks import check_generators, check_legacy
from cadiff.params.data import TABLES, VISA_TABLE, DatasetParams, DrawParams, Layout, Range, percentiles
from cadiff.params.detecting import LEGACY, SMP, ClassifierParams, DetectorParams, MetricParams
from cadiff.params.drawing import FilterParams, GenerateParams, IntensityParams, MaskParams
from cadiff.params.groups import EXTERNAL_IMAGES, EXTERNAL_MAPS, ExportFormat
from cadiff.params.keys import file_form
from cadiff.params.loading import load_params
from cadiff.params.methods import (
    ADDED,
    EXEMPLARS,
    KINDS,
    METHODS,
    OURS,
    WITHOUT_DEFECTS,
    Kind,
    kinds_of,
    of_kind,
    parts_of,
    those_that_learn,
    those_that_need,
)
from cadiff.params.presets import use_preset
from cadiff.params.reading import as_written, inline, read_mapping
from cadiff.params.section import first_problem
from cadiff.params.settings import READS, SETTINGS, pick, settings_path, write_settings
from cadiff.params.showing import as_lines, changed, resolved
from cadiff.params.training import ControlParams, PromptParams, TrainParams
from cadiff.params.whole import RESULT_KEYS, SECTIONS, Params

__all__ = [
    "ADDED",
    "EXEMPLARS",
    "EXTERNAL_IMAGES",
    "EXTERNAL_MAPS",
    "KINDS",
    "LEGACY",
    "METHODS",
    "OURS",
    "READS",
    "RESULT_KEYS",
    "SECTIONS",
    "SETTINGS",
    "SMP",
    "TABLES",
    "VISA_TABLE",
    "WITHOUT_DEFECTS",
    "BaseParams",
    "ClassifierParams",
    "ControlParams",
    "DatasetParams",
    "DetectorParams",
    "DrawParams",
    "ExportFormat",
    "FilterParams",
    "GenerateParams",
    "IntensityParams",
    "Kind",
    "Layout",
    "MaskParams",
    "MetricParams",
    "Params",
    "PromptParams",
    "Range",
    "TrainParams",
    "WindowParams",
    "as_lines",
    "as_written",
    "changed",
    "check_generators",
    "check_legacy",
    "file_form",
    "first_problem",
    "inline",
    "kinds_of",
    "load_params",
    "of_kind",
    "parts_of",
    "percentiles",
    "pick",
    "read_mapping",
    "resolved",
    "settings_path",
    "those_that_learn",
    "those_that_need",
    "use_preset",
    "write_settings",
]
