"""Figures. Each function returns a matplotlib ``Figure`` (or an animation) and shows nothing by itself.

:mod:`~physml.plot.fields` sets states beside each other, :mod:`~physml.plot.trajectories` draws how errors and balances
develop and films states, :mod:`~physml.plot.spectra` shows the energy at each scale.
"""

from physml.plot import fields, spectra, trajectories
from physml.plot.style import save, save_animation

__all__ = ["fields", "save", "save_animation", "spectra", "trajectories"]
