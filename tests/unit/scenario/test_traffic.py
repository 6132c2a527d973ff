"""Traffic in the words of the command line becomes requests."""

import numpy as np
import pytest

from perfmodel.cli.options import documented
from perfmodel.core.errors import UsageError
from perfmodel.scenario.serving import Serving
from perfmodel.scenario.traffic import Traffic, draw, passes, tenants
from perfmodel.serving.arrivals import PROCESSES
from perfmodel.serving.denoise import LOOPS
from perfmodel.serving.graph import GRAPHS
from perfmodel.serving.simulate.fleet import Routing, routing_name
from perfmodel.serving.simulate.policy import POLICIES
from perfmodel.serving.traces import FORMATS
from perfmodel.serving.workload import PRESETS


def test_laws_and_count():
    asked = draw(Traffic(isl="uniform(10, 20)", osl="7", num_requests=500), 5.0)
    assert len(asked) == 500
    assert asked.prompt.min() >= 10
    assert asked.prompt.max() <= 20
    assert set(asked.output) == {7}
    assert asked.arrival[-1] == pytest.approx(100, rel=0.2)


def test_thinking_is_hidden_and_counts_as_output():
    asked = draw(Traffic(osl="10", thinking="30", num_requests=5), 1.0)
    assert set(asked.output) == {40}
    assert asked.hidden is not None
    assert set(asked.hidden) == {30}


def test_presets_graphs_and_loops():
    for name in PRESETS:
        assert len(draw(Traffic(workload=name, num_requests=20), 1.0)) == 20
    pictures = draw(Traffic(workload="sdxl", num_requests=3), 1.0)
    assert set(pictures.output) == {50}
    assert passes(Traffic(workload="sdxl")) == 2
    assert passes(Traffic(workload="chat")) == passes(Traffic()) == 1
    fan = draw(Traffic(graph="best_of_n(n=3)", num_requests=2), 1.0)
    assert len(fan) == 8
    assert fan.pool is None  # one model answers all calls
    pools = ("small", "scorer", "large")
    assert draw(Traffic(graph="cascade", num_requests=2), 1.0, pools).pool is not None


def test_a_shared_prefix_gives_equal_blocks():
    asked = draw(
        Traffic(isl="200", shared_prefix="tokens=64, groups=1, block=16", num_requests=4), 1.0
    )
    assert asked.hash_ids is not None
    start, ids = asked.hash_ids
    rows = [ids[start[i] : start[i + 1]] for i in range(4)]
    assert all(np.array_equal(row[:4], rows[0][:4]) for row in rows)
    assert len({row[4] for row in rows}) == 4


def test_traces_keep_their_times_unless_a_rate_is_given(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,isl_tokens,osl_tokens\n0,10,5\n7,20,6\n")
    asked = Traffic(trace=str(path), trace_format="plain")
    assert draw(asked, None).arrival.tolist() == [0, 7]
    assert draw(asked, 10.0).arrival.tolist() != [0, 7]
    assert draw(asked, 10.0).prompt.tolist() == [10, 20]


def test_tenants_and_adapters():
    asked = Traffic(
        num_requests=2000, tenants=("paid(share=1, ttft=500)", "free(share=3, priority=1)"),
        adapters="count=10, skew=0, base=0.5",
    )  # fmt: skip
    made = draw(asked, 1.0)
    assert made.tenant is not None
    assert made.adapter is not None
    assert made.tenant.mean() == pytest.approx(0.75, abs=0.05)
    assert np.mean(made.adapter == -1) == pytest.approx(0.5, abs=0.05)
    assert made.adapter.max() == 9
    limits = tenants(asked)
    assert (limits[0].ttft, limits[0].tpot, limits[1].ttft) == (0.5, None, None)
    assert limits[1].priority == 1


@pytest.mark.parametrize(
    ("traffic", "word"),
    [
        (Traffic(workload="chat", graph="rag"), "one of --workload and --graph"),
        (Traffic(workload="chatt"), "nearest: chat"),
        (Traffic(graph="ragg"), "nearest: rag"),
        (Traffic(num_requests=0), "at least 1"),
        (Traffic(graph="rag", shared_prefix="tokens=100"), "has its own"),
        (Traffic(shared_prefix="groups=2"), "tokens is missing"),
        (Traffic(tenants=("paid(shore=1)",)), "nearest: share"),
        (Traffic(tenants=("paid(share=0)",)), "more than 0"),
        (Traffic(tenants=("paid", "paid")), "two tenants"),
        (Traffic(adapters="count=0"), "at least 1"),
        (Traffic(adapters="skew=1"), "count is missing"),
        (Traffic(seed=-1), "seed of -1"),
    ],
    ids=str,
)
def test_bad_traffic(traffic, word):
    with pytest.raises(UsageError, match=word):
        draw(traffic, 1.0)


def test_the_help_names_what_there_is():
    """What a flag's help lists is what is registered."""
    told = documented(Traffic) | documented(Serving)
    for name, known in (
        ("workload", {**PRESETS, **LOOPS}), ("graph", set(GRAPHS)), ("arrivals", PROCESSES),
        ("trace_format", FORMATS), ("scheduler", POLICIES),
        ("routing", [routing_name(each) for each in Routing]),
    ):  # fmt: skip
        for each in known:
            assert each in told[name], f"{name}: {each}"
