"""A conversation: each turn is asked behind all turns before it, after a person has thought."""

from perfmodel.serving.graph import (
    Call,
    Common,
    Graph,
    Loop,
    New,
    Output,
    Prompt,
    Recipe,
    pause,
    stop_after,
    whole,
)
from perfmodel.serving.lengths import LogNormal


def chat(
    turns: float = 2.0,
    longest: float = 40,
    system: float = 200,
    user: float = 69.5,
    answer: float = 214.5,
    think_s: float = 7.18,
) -> Graph:
    """Turns with a person between them; the context grows by question and answer.

    Parameters
    ----------
    turns : float
        Mean number; each is the last with probability ``1 / turns``.
    longest : int
        Most turns; cuts the tail.
    system : int
        Common system prompt [tokens].
    user, answer : float
        Mean of one message and of its answer [tokens].
    think_s : float
        Median time between an answer and the next message [s].
    """
    said = New(LogNormal.of(mean=user, sigma=1.0))
    turn = Call(
        "turn",
        (Common("system", whole("system", system)), said),
        LogNormal.of(mean=answer, sigma=1.0),
        loop=Loop(
            whole("longest", longest),
            stop=stop_after("turns", turns),
            prompt=(Prompt("turn"), Output("turn"), said),
            delay_ms=pause("think_s", think_s, sigma=0.57),
        ),
    )
    return Graph(
        "chat",
        (turn,),
        source="turns and tokens: LMSYS-Chat-1M (arXiv 2309.11998), basic statistics as quoted by "
        "a reader (2.0 turns, 69.5 and 214.5 tokens on average); time between turns: "
        "gitea.gahow.org/gahow/agentic-kvc, commit 876d09db83 (42 228 gaps of a production chat "
        "trace: p50 7.18 s, p90 15.0 s)",
        illustrative="the system prompt, the lognormal forms and the sigmas of the lengths",
    )


GRAPH = Recipe(chat)
