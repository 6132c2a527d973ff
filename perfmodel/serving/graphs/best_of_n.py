"""Best of n: samples of one prompt at once, then a judge that reads them all."""

from perfmodel.serving.graph import Call, Common, Graph, Output, Recipe, Text, whole
from perfmodel.serving.lengths import Fixed, LogNormal


def best_of_n(
    n: float = 8,
    examples: float = 600,
    question: float = 100,
    answer: float = 300,
    verdict: float = 20,
) -> Graph:
    """Parallel samples and a judge.

    Parameters
    ----------
    n : int
        Samples.
    examples : int
        Common few-shot examples [tokens].
    question, answer : float
        Means [tokens].
    verdict : int
        Tokens the judge writes.
    """
    asked = Text("question", LogNormal.of(mean=question, sigma=0.5))
    sample = Call(
        "sample",
        (Common("examples", whole("examples", examples)), asked),
        LogNormal.of(mean=answer, sigma=0.5),
        copies=whole("n", n),
    )
    judge = Call(
        "judge",
        (Common("grading", 200), asked, Output("sample")),
        Fixed(whole("verdict", verdict)),
        pool="judge",
        after=("sample",),
    )
    return Graph(
        "best_of_n",
        (sample, judge),
        source="repeated sampling with a selector: Brown et al., Large Language Monkeys (arXiv "
        "2407.21787), abstract (gains up to hundreds of samples)",
        illustrative="all numbers",
    )


GRAPH = Recipe(best_of_n)
