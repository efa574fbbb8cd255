"""What is said of a shipped detector in several places, in words: what its threshold promises, and what it needs to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INSTALL = 'pip install numpy "pillow>=10.1" onnxruntime'  # run.py's packages; an older Pillow has no Image.has_transparency_data
NO_VERDICTS = "It gives scores, but no verdicts"


def threshold_said(said: Mapping[str, Any]) -> str:
    """From which score on a picture is called defective, and what that promises; ``said`` is a ``detector.json`` that has a threshold."""
    image, generated = said["image"], said["threshold"] == "generated"
    nothing = "It calls nothing defective: a calibration normal has the highest score there is. " if image["value"] >= 1 else ""
    moved = "; it was then moved half way to the scores of generated anomalies where these lie higher (detector.threshold: generated)"
    one = image["normals"] == 1
    missing = f", which takes {image['missing']:,} more calibration normals" if image["missing"] else ""
    return (
        f"{nothing}A picture is called defective where its score is above {image['value']:.6g}. {image['normals']:,} calibration "
        f"normal{' sets' if one else 's set'} that, good pictures that nothing was trained on{moved if generated else ''}. The chance that "
        f"a good picture that comes as those came is called defective is at most {percent(image['promised'])}, over all choices of so many "
        f"pictures; with those that were chosen the share that will be seen lies between {percent(image['low'])} and "
        f"{percent(image['high'])} (95\u202f% interval). Asked for: {asked(said['false_alarms'])} (detector.false_alarms){missing}."
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f}\u202f%"


def asked(share: float) -> str:
    """A share that was set, with all its digits."""
    return f"{100 * share:g}\u202f%"
