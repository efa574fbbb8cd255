"""How fast the machine is used, and how cost grows: ``python -m benchmarks.bench`` (``make bench``); see ``__main__``."""
