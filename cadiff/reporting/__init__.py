"""Tables, figures and the HTML page: what was generated, whether it helped a detector, against what."""

from cadiff.reporting.page import write_report

__all__ = ["write_report"]
