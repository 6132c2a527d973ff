"""Pool fits of several GPUs: a generation's rates, and what an unmeasured GPU inherits.

Each GPU deviates from its generation, each generation from all. The spread of the members is how
far a further member may lie (empirical Bayes, Efron and Morris, JASA 70, 1975): it widens the
errors of a GPU that was not measured and shrinks the fit of one that was towards its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.calibrate.fit import Array, Belief, Fit, Model, fit

# Members never agree better than this: boards of one part differ by a few per cent.
LEAST = 0.03
# Deviation to assume of a group with one member: what generations differ by.
ALONE = 0.3


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Fits by GPU, pooled by generation and over all."""

    fits: dict[str, Fit]
    generations: dict[str, Belief]
    everything: Belief

    def inherited(self, generation: str) -> Belief:
        """Rates of an unmeasured GPU: its generation's, or all generations' if that is new."""
        return self.generations.get(generation, self.everything)


def pool(means: Sequence[Array], variances: Sequence[Array]) -> Belief:
    """Mean of the members, and the deviation of a further one.

    Examples
    --------
    >>> belief = pool([np.array([1.0]), np.array([2.0])], [np.array([0.0]), np.array([0.0])])
    >>> belief.mean.tolist(), belief.deviation.round(2).tolist()
    ([1.5], [0.87])
    """
    values, own = np.array(means), np.array(variances)
    count = len(values)
    between = np.full(values.shape[1], ALONE**2)
    if count > 1:
        between = np.maximum(values.var(axis=0, ddof=1) - np.median(own, axis=0), LEAST**2)
    weights = 1 / (between + own)
    mean = (weights * values).sum(axis=0) / weights.sum(axis=0)
    return Belief(mean, np.sqrt(between + 1 / weights.sum(axis=0)))


def hierarchical(models: Mapping[str, Model], generation: Mapping[str, str]) -> Hierarchy:
    """Fit every GPU alone, pool, then fit again with the pooled beliefs.

    Parameters
    ----------
    models : mapping
        One model per GPU, all with the same parameters.
    generation : mapping
        The generation of every GPU.
    """
    alone = {gpu: fit(model) for gpu, model in models.items()}
    beliefs, everything = _pooled(alone, generation)
    fits: dict[str, Fit] = {}
    for gpu, model in models.items():
        siblings = [other for other in models if generation[other] == generation[gpu]]
        belief = beliefs[generation[gpu]] if len(siblings) > 1 else everything
        fits[gpu] = fit(model, belief, first=alone[gpu].logs)
    beliefs, everything = _pooled(fits, generation)
    return Hierarchy(fits, beliefs, everything)


def _pooled(
    fits: Mapping[str, Fit], generation: Mapping[str, str]
) -> tuple[dict[str, Belief], Belief]:
    beliefs: dict[str, Belief] = {}
    for name in dict.fromkeys(generation[gpu] for gpu in fits):
        members = [found for gpu, found in fits.items() if generation[gpu] == name]
        beliefs[name] = pool(
            [found.logs for found in members], [np.diag(found.covariance) for found in members]
        )
    everything = pool(
        [belief.mean for belief in beliefs.values()],
        [np.zeros_like(belief.mean) for belief in beliefs.values()],
    )
    return beliefs, everything
