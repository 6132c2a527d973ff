"""A tool loop: think and act, observe, and again, all in one growing context (ReAct)."""

from perfmodel.serving.graph import (
    Call,
    Common,
    Graph,
    Loop,
    New,
    Output,
    Prompt,
    Recipe,
    Text,
    pause,
    stop_after,
    whole,
)
from perfmodel.serving.lengths import LogNormal


def react_agent(
    steps: float = 9.2,
    longest: float = 64,
    system: float = 960,
    question: float = 40,
    action: float = 100,
    observation: float = 205,
    tool_s: float = 1.0,
) -> Graph:
    """An agent that calls one tool per step.

    Parameters
    ----------
    steps : float
        Mean number of calls; each is the last with probability ``1 / steps``.
    longest : int
        Most calls; cuts the tail.
    system : int
        Common instructions and examples [tokens].
    question : float
        Mean of the task [tokens].
    action, observation : float
        Mean of a thought with its action, and of what the tool returns [tokens].
    tool_s : float
        Median time of the tool [s].
    """
    step = Call(
        "step",
        (
            Common("system", whole("system", system)),
            Text("question", LogNormal.of(mean=question, sigma=0.5)),
        ),
        LogNormal.of(mean=action, sigma=0.5),
        loop=Loop(
            whole("longest", longest),
            stop=stop_after("steps", steps),
            prompt=(
                Prompt("step"),
                Output("step"),
                New(LogNormal.of(mean=observation, sigma=0.5)),
            ),
            delay_ms=pause("tool_s", tool_s, sigma=0.5),
        ),
    )
    return Graph(
        "react_agent",
        (step,),
        source="loop: ReAct (arXiv 2210.03629); calls and growth: Kim et al., The Cost "
        "of Dynamic Reasoning (arXiv 2506.04301), figures 4 and 8, as summarised by a reader "
        "(ReAct makes 9.2 times the calls of one answer; HotpotQA prompts of about 1000 tokens "
        "grow three- to fourfold)",
        illustrative="the tool's time, how growth splits into action and observation, the "
        "geometric number of steps, forms and sigmas",
    )


GRAPH = Recipe(react_agent)
