"""Exports an objective's features as plain arrays, for tools without Python or Numba.

Only this folder uses h5py. The command line and `streamfeat.dataset` import it. It writes below DEST, in processes of
`workers`.
"""

from streamfeat.export.export import Exported, export_steps

__all__ = ["Exported", "export_steps"]
