"""Memory: more tokens never take less, longer sequences never fit more often, parts add up."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.memory.fit import Footprint, footprint, sequence_bytes, weight_bytes
from perfmodel.parallel.layout import Layout
from tests.properties import strategies as made

tokens = made.log_uniform(1, 1_000_000)
pages = st.sampled_from([1.0, 16.0, 64.0, 256.0])


@given(st.data())
def test_cache_grows_with_the_sequence(data: Any) -> None:
    model, precision = data.draw(made.decoders), data.draw(made.formats)
    layout, page = data.draw(made.layouts(model)), data.draw(pages)
    short, more = data.draw(tokens), data.draw(tokens)

    def size(length: float, page: float) -> Any:
        return sequence_bytes(model, layout, precision, float(length), page)

    assert 0 < size(short, page) <= size(short + more, page)
    assert size(short, 1.0) <= size(short, page)
    # no more than the tokens' own pages: a full one wastes nothing
    assert size(page, page) == size(1.0, page)
    if page > 1:
        assert size(page + 1, page) <= 2 * size(page, page)
    assert size(short + more, 1.0) <= size(short, 1.0) + size(more, 1.0)


def fit(model: Any, layout: Layout, precision: Any, length: Any, **changes: Any) -> Footprint:
    asked = {
        "capacity": 192e9, "utilization": 0.9, "budget": 8192.0, "seqs": 256.0, "page": 16.0,
        "runtime": 1e9, "graphs": 1e9, "communication": 5e8,
    }  # fmt: skip
    return footprint(
        model, layout, precision, **(asked | changes), mean_tokens=length, full_tokens=length
    )


@given(st.data())
def test_longer_sequences_fit_less_often(data: Any) -> None:
    model, precision = data.draw(made.decoders), data.draw(made.formats)
    layout = data.draw(made.layouts(model))
    lengths = np.sort(np.array(data.draw(st.lists(tokens, min_size=5, max_size=5)), dtype=float))
    made_fit = fit(model, layout, precision, lengths)
    most = np.broadcast_to(made_fit.max_seqs, lengths.shape)  # one number for a pure recurrence
    assert np.all(np.diff(most) <= 0)
    fits = np.broadcast_to(made_fit.fits, lengths.shape)
    assert np.all(fits[:-1] >= fits[1:])
    held = most * made_fit.sequence
    assert np.all(held <= np.maximum(made_fit.pool, 0))
    assert np.all((held + made_fit.sequence > made_fit.pool) | (made_fit.pool < 0))


@given(st.data())
def test_parts_add_up_and_each_pushes_the_cache_out(data: Any) -> None:
    model, precision = data.draw(made.decoders), data.draw(made.formats)
    layout, length = data.draw(made.layouts(model)), float(data.draw(tokens))
    base = fit(model, layout, precision, length)
    assert base.fixed + base.pool == pytest.approx(0.9 * 192e9, rel=1e-12)
    assert base.weights == weight_bytes(model, layout, precision)
    extra = data.draw(st.floats(1e6, 5e9))
    for name in ("runtime", "graphs"):
        more = fit(model, layout, precision, length, **{name: 1e9 + extra})
        assert base.pool - more.pool == pytest.approx(extra, rel=1e-6)
    larger = fit(model, layout, precision, length, capacity=192e9 + extra)
    assert larger.pool - base.pool == pytest.approx(0.9 * extra, rel=1e-6)
    busier = fit(model, layout, precision, length, budget=8192.0 * 2, seqs=512.0)
    assert busier.activations == pytest.approx(2 * base.activations)


@given(st.data())
def test_quantised_weights_are_smaller(data: Any) -> None:
    from perfmodel.core.precision import SCHEMES

    model = data.draw(made.decoders)
    layout = data.draw(made.layouts(model))
    sizes = [weight_bytes(model, layout, SCHEMES[name]) for name in ("fp32", "bf16", "fp8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=1e-12)
