"""Numbers for people: errors of a state, of a spectrum, over time, and how well their means are known."""

from typing import Any

from physml.metrics import pdebench, pointwise, spectral, temporal
from physml.metrics.bootstrap import Interval, Units, bootstrap_interval
from physml.metrics.pdebench import (
    Bands,
    band_rmse,
    boundary_rmse,
    conserved_rmse,
    fourier_rmse,
    maximum_error,
)
from physml.metrics.pointwise import (
    UndefinedMetric,
    average,
    correlation,
    difference,
    divergence,
    linf,
    mae,
    nrmse,
    relative_l1,
    relative_l2,
    relative_linf,
    rmse,
    variance,
    vrmse,
)
from physml.metrics.spectral import log_spectral_error
from physml.metrics.temporal import CorrelationTime, correlation_time, logarithmic_windows, window_means

DEFINITIONS = {
    **pointwise.DEFINITIONS,
    **pdebench.DEFINITIONS,
    **spectral.DEFINITIONS,
    **temporal.DEFINITIONS,
}
"""One printable sentence for each metric, to be shown beside its numbers."""

__all__ = [
    "DEFINITIONS",
    "Bands",
    "CorrelationTime",
    "Interval",
    "RolloutError",
    "UndefinedMetric",
    "Units",
    "average",
    "band_rmse",
    "bootstrap_interval",
    "boundary_rmse",
    "conserved_rmse",
    "correlation",
    "correlation_time",
    "difference",
    "divergence",
    "fourier_rmse",
    "linf",
    "log_spectral_error",
    "logarithmic_windows",
    "mae",
    "maximum_error",
    "nrmse",
    "relative_l1",
    "relative_l2",
    "relative_linf",
    "rmse",
    "variance",
    "vrmse",
    "window_means",
]


def __getattr__(name: str) -> Any:
    if name == "RolloutError":  # the only one that needs torchmetrics, which takes seconds to import
        from physml.metrics.states import RolloutError

        return RolloutError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
