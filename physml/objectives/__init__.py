"""What training minimises."""

from physml.objectives.losses import Loss, MeanSquare, RelativeL2
from physml.objectives.next_step import Curriculum, NextStep, Pushforward
from physml.objectives.objective import Objective, Predict, Progress

__all__ = [
    "Curriculum",
    "Loss",
    "MeanSquare",
    "NextStep",
    "Objective",
    "Predict",
    "Progress",
    "Pushforward",
    "RelativeL2",
]
