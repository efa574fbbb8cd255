"""What a preset takes before it is started: memory of a training step and of drawing, hours, disk. Counted, not guessed, and of nothing
but the base's configurations."""

from cadiff.needs.counting import GIB, Drawing, Live, Step, configurations, drawing_of, shapes_of, step_of
from cadiff.needs.telling import needs

__all__ = ["GIB", "Drawing", "Live", "Step", "configurations", "drawing_of", "needs", "shapes_of", "step_of"]
