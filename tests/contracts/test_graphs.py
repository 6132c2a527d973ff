"""What every call graph promises: one file, a source, documented parameters, tasks that unroll."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import perfmodel.serving.graphs as folder
from perfmodel.core.errors import UsageError
from perfmodel.serving.graph import GRAPHS, parse_graph
from perfmodel.serving.unroll import unroll

EVERY = pytest.mark.parametrize("name", GRAPHS)


def test_one_file_each() -> None:
    (place,) = folder.__path__
    files = {path.stem for path in Path(place).glob("*.py") if not path.stem.startswith("_")}
    assert files == set(GRAPHS)


@EVERY
def test_is_described(name: str) -> None:
    graph = GRAPHS[name].build()
    assert graph.name == name
    assert re.search(r"arxiv|github", graph.source, re.IGNORECASE)
    assert graph.illustrative
    doc = inspect.getdoc(GRAPHS[name].build)
    assert doc is not None
    documented = re.findall(r"^((?:\w+, )*\w+) : (?:int|float)$", doc, re.MULTILINE)
    parameters = inspect.signature(GRAPHS[name].build).parameters
    assert [one for names in documented for one in names.split(", ")] == list(parameters)
    assert all(isinstance(item.default, int | float) for item in parameters.values())


@EVERY
def test_unrolls(name: str) -> None:
    graph = parse_graph(name)
    requests = unroll(graph, 50, 10.0)
    assert requests.task is not None
    assert np.array_equal(np.unique(requests.task), np.arange(50))
    assert requests.session is requests.task
    assert requests.pool is not None
    assert set(requests.pool.tolist()) == set(range(len(graph.pools)))
    assert requests.hash_ids is not None
    whole, prompts = np.diff(requests.hash_ids[0]), -(-requests.prompt // 16)
    answered = -(-(requests.prompt + requests.output) // 16)
    assert np.all((whole == prompts) | (whole == answered))


@EVERY
def test_every_parameter_does_something(name: str) -> None:
    usual = unroll(GRAPHS[name].build(), 200, 10.0)
    for key, item in inspect.signature(GRAPHS[name].build).parameters.items():
        changed = unroll(GRAPHS[name].build(**{key: max(item.default // 2, 1)}), 200, 10.0)
        same = len(usual) == len(changed) and all(
            getattr(usual, column) is getattr(changed, column) is None
            or np.array_equal(getattr(usual, column), getattr(changed, column))
            for column in ("prompt", "output", "delay")
        )
        # Cutting a tail of one in a million tasks shows in no 200.
        assert not same or key == "longest" or item.default == 1


@EVERY
def test_wrong_parameters_name_the_nearest(name: str) -> None:
    parameter = next(iter(inspect.signature(GRAPHS[name].build).parameters))
    with pytest.raises(UsageError, match=f"{parameter}$|nearest: {parameter}|it has {parameter}"):
        parse_graph(f"{name}({parameter}x=1)")


def test_unknown_graph_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="no call graph named 'text2sql'; nearest: text_to_sql"):
        parse_graph("text2sql")
