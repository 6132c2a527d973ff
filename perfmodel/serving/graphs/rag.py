"""Retrieval-augmented generation: embed the question, search, rerank, answer from passages."""

from perfmodel.serving.graph import Call, Graph, New, Recipe, Text, pause, whole
from perfmodel.serving.lengths import Fixed, LogNormal


def rag(
    question: float = 32,
    passage: float = 96,
    k: float = 5,
    rerank: float = 16,
    answer: float = 256,
    retrieve_s: float = 0.1,
) -> Graph:
    """One retrieval before the answer.

    Parameters
    ----------
    question : int
        Tokens of the question.
    passage : int
        Tokens of each passage.
    k : int
        Passages that the answer is based on.
    rerank : int
        Candidates that a reranker scores, one request each; 0 for no reranker.
    answer : float
        Mean of the answer [tokens].
    retrieve_s : float
        Time of the search [s].
    """
    asked = Text("question", Fixed(whole("question", question)))
    tokens, kept = whole("passage", passage), whole("k", k)
    candidates = whole("rerank", rerank, least=0)
    search = pause("retrieve_s", retrieve_s)
    embed = Call("embed", (asked,), Fixed(1), pool="embedding")
    score = Call(
        "score",
        (asked, New(Fixed(tokens))),
        Fixed(1),
        pool="reranker",
        after=("embed",),
        delay_ms=search,
        copies=max(candidates, 1),
    )
    generate = Call(
        "generate",
        (Text("passages", Fixed(kept * tokens)), asked),
        LogNormal.of(mean=answer, sigma=0.7),
        after=("score",) if candidates else ("embed",),
        delay_ms=None if candidates else search,
    )
    return Graph(
        "rag",
        (embed, score, generate) if candidates else (embed, generate),
        source="RAGO (arXiv 2503.14649), cases I and IV, as summarised by a reader: questions of "
        "32 tokens, the 16 nearest passages of about 100 tokens reranked to five, prompts of 512",
        illustrative="passages of 96 tokens (so that prompts are 512), the answer, the time of "
        "the search; all passages differ between tasks",
    )


GRAPH = Recipe(rag)
