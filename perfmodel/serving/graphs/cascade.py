"""A cascade: a small model answers, a scorer judges, a large model answers if it must."""

from perfmodel.serving.graph import Call, Common, Graph, Output, Recipe, Text, whole
from perfmodel.serving.lengths import Fixed, LogNormal


def cascade(
    escalated: float = 0.4,
    system: float = 200,
    question: float = 69.5,
    answer: float = 214.5,
) -> Graph:
    """Small model first.

    Parameters
    ----------
    escalated : float
        Share of the questions that go on to the large model.
    system : int
        Common system prompt, and that of the scorer [tokens].
    question, answer : float
        Means [tokens].
    """
    tokens = whole("system", system)
    asked = Text("question", LogNormal.of(mean=question, sigma=1.0))
    answers = LogNormal.of(mean=answer, sigma=1.0)
    small = Call("small", (Common("system", tokens), asked), answers, pool="small")
    score = Call(
        "score",
        (Common("grading", tokens), asked, Output("small")),
        Fixed(1),
        pool="scorer",
        after=("small",),
    )
    large = Call(
        "large",
        (Common("system", tokens), asked),
        answers,
        pool="large",
        after=("score",),
        probability=escalated,
    )
    return Graph(
        "cascade",
        (small, score, large),
        source="cascade with a scorer: FrugalGPT (arXiv 2305.05176); share: Yue et al. (arXiv "
        "2310.03094), abstract (accuracy of the large model at 40 % of its cost, which is the "
        "share escalated if the small model is free); tokens: LMSYS-Chat-1M (arXiv 2309.11998), "
        "basic statistics as quoted by a reader",
        illustrative="the system prompts, the lognormal forms and their sigmas",
    )


GRAPH = Recipe(cascade)
