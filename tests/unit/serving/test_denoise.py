"""Denoising loops as requests."""

import numpy as np
import pytest

from perfmodel.core.errors import UsageError
from perfmodel.serving.arrivals import deterministic
from perfmodel.serving.denoise import LOOPS, DenoiseLoop, denoise_loop, denoise_requests
from perfmodel.serving.lengths import Fixed, Uniform


def test_one_token_per_step():
    requests = denoise_requests(Uniform(20, 50), 1000, 4.0, process=deterministic, seed=2)
    assert np.array_equal(requests.arrival, np.arange(1, 1001) / 4)
    assert np.unique(requests.prompt).tolist() == [1]
    assert np.unique(requests.output).tolist() == list(range(20, 51))


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_has_a_source(name):
    loop = denoise_loop(name)
    assert loop.source
    assert loop.passes in (1, 2)
    requests = denoise_requests(loop.steps, 3, 1.0)
    assert requests.output.tolist() == [loop.steps.mean] * 3


def test_what_cannot_be():
    with pytest.raises(UsageError, match="no denoising loop 'sdx'; nearest: sdxl"):
        denoise_loop("sdx")
    with pytest.raises(UsageError, match="0 passes per denoising step"):
        DenoiseLoop(Fixed(50), passes=0, source="")
    with pytest.raises(UsageError, match="0 requests; at least 1"):
        denoise_requests(Fixed(50), 0, 1.0)
