"""Agentic text-to-SQL: link the schema, draft queries, run and correct them, test, select."""

from perfmodel.serving.graph import (
    Call,
    Common,
    Graph,
    Loop,
    New,
    Output,
    Recipe,
    Text,
    pause,
    whole,
)
from perfmodel.serving.lengths import Fixed, LengthLaw, LogNormal


def text_to_sql(
    candidates: float = 2,
    rounds: float = 10,
    stop: float = 0.375,
    columns: float = 7,
    tests: float = 3,
    execute_s: float = 0.5,
) -> Graph:
    """The workflow of CHESS as served by HexGen-Text2SQL.

    Parameters
    ----------
    candidates : int
        Queries drafted at once.
    rounds : int
        Most corrections of each.
    stop : float
        Probability that a correction is the last.
    columns : int
        Calls that judge whether a column matters.
    tests : int
        Unit tests that the candidates are held against, one call each.
    execute_s : float
        Time to run a query on the database, before each correction [s].
    """
    asked = Text("question", Fixed(40))
    run = pause("execute_s", execute_s)
    keywords = Call("keywords", (Common("keywords", 639), asked), _about(49))
    retrieve = Call(
        "retrieve",
        (Common("retrieve", 230), asked, New(_about(36))),
        _about(7),
        after=("keywords",),
        copies=whole("columns", columns),
    )
    candidate = Call(
        "candidate",
        (Common("candidate", 2000), Text("schema", _about(8728)), asked),
        _about(696),
        after=("retrieve",),
        copies=whole("candidates", candidates),
    )
    narrow = (Common("revise", 1000), Text("narrow schema", _about(5497)), asked)
    revise = Call(
        "revise",
        (*narrow, Output("candidate")),
        _about(156),
        after=("candidate",),
        delay_ms=run,
        per="candidate",
        loop=Loop(whole("rounds", rounds), stop, prompt=(*narrow, Output("revise")), delay_ms=run),
    )
    generate_tests = Call(
        "generate_tests",
        (Common("generate_tests", 600), asked, Output("revise"), New(_about(217))),
        _about(104),
        after=("revise",),
    )
    check = Call(
        "check",
        (Common("check", 150), asked, New(_about(85))),
        _about(5),
        after=("generate_tests",),
        copies=2,
    )
    evaluate = Call(
        "evaluate",
        (Common("evaluate", 500), asked, Output("revise"), New(_about(290))),
        _about(30),
        after=("check", "revise"),
        copies=whole("tests", tests),
    )
    return Graph(
        "text_to_sql",
        (keywords, retrieve, candidate, revise, generate_tests, check, evaluate),
        source="stages and up to ten corrections: HexGen-Text2SQL (arXiv 2505.05286), as "
        "summarised by a reader; mean tokens of each kind of call, and 20.9 calls with 65.6 "
        "thousand prompt and 2505 output tokens per query: its repository's trace3 "
        "(github.com/Relaxed-System-Lab/Hexgen-Flow)",
        illustrative="how often each kind is called (chosen so that the three totals are met), "
        "what prompts share, forms and sigmas, the time to run a query",
    )


def _about(mean: float) -> LengthLaw:
    return LogNormal.of(mean=mean, sigma=0.4)


GRAPH = Recipe(text_to_sql)
