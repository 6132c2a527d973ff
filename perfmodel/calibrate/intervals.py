"""Error bars of a fitted latency: what the rates leave open, and what the formula leaves out."""

from __future__ import annotations

import numpy as np

from perfmodel.calibrate.fit import Array, sobol

# Half-width of a normal distribution's central 90 %, in standard deviations.
NORMAL_90 = 1.6449


def half_width(jacobian: Array, covariance: Array, tail: float) -> Array:
    """Half-width of the 90 % interval of log latency, row by row.

    Parameters
    ----------
    jacobian : array
        Derivative of log latency by the logs of the rates [rows, rates].
    covariance : array
        Of those logs.
    tail : float
        90 % quantile of the absolute log residuals of rows that were not fitted; a quantile and not
        a deviation, because kernels miss by little mostly and by much sometimes.
    """
    variance = np.einsum("ri,ij,rj->r", jacobian, covariance, jacobian)
    return np.hypot(tail, NORMAL_90 * np.sqrt(np.maximum(variance, 0.0)))


def draws(logs: Array, covariance: Array, count: int) -> Array:
    """Rates drawn from their covariance by a Sobol sequence [count, rates], in their own units.

    For metrics that are no plain function of one latency: put the draws on an array axis.
    """
    from scipy.special import ndtri

    size, turn = np.linalg.eigh(covariance)
    normal: Array = ndtri(sobol(len(logs), count))
    return np.exp(logs + (normal * np.sqrt(np.maximum(size, 0.0))) @ turn.T)
