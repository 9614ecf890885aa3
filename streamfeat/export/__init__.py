"""An objective's features as plain arrays, for tools that run neither Python nor Numba."""

from streamfeat.export.export import Finished, export_steps

__all__ = ["Finished", "export_steps"]
