"""Call graphs: a task as the calls it makes, and what each call reads of the earlier ones.

A graph is data; `perfmodel.serving.unroll` draws tasks from it. The known ones are the files of
`perfmodel.serving.graphs`; `parse_graph` reads the command line's spelling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from perfmodel.core.errors import UsageError, near
from perfmodel.core.registry import Registry
from perfmodel.serving.lengths import Fixed, LengthLaw, LogNormal
from perfmodel.serving.spec import arguments, spec


@dataclass(frozen=True, slots=True)
class Common:
    """Text that is the same in every task: a system prompt, few-shot examples."""

    name: str
    tokens: int

    def __post_init__(self) -> None:
        whole(f"common text {self.name!r}", self.tokens)


@dataclass(frozen=True, slots=True)
class Text:
    """Text drawn once per task and the same wherever its name appears: a question, documents."""

    name: str
    law: LengthLaw


@dataclass(frozen=True, slots=True)
class New:
    """Text drawn for each request: what a tool returned, what a person wrote."""

    law: LengthLaw


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that an earlier call was asked: a context that goes on. Comes first."""

    call: str


@dataclass(frozen=True, slots=True)
class Output:
    """What an earlier call answered, without its hidden tokens; nothing if it did not happen."""

    call: str


Part: TypeAlias = Common | Text | New | Prompt | Output


@dataclass(frozen=True, slots=True)
class Loop:
    """Further rounds of a call, each after the one before: agent steps, turns, corrections.

    Parameters
    ----------
    rounds : int
        At most, the first included.
    stop : float
        Probability that a round is the last.
    prompt : tuple of Part
        Of the later rounds; that of the first if empty. The call's own name is the round before.
    delay_ms : LengthLaw, optional
        Before each later round [ms].
    """

    rounds: int
    stop: float = 0.0
    prompt: tuple[Part, ...] = ()
    delay_ms: LengthLaw | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of request that a task makes.

    Where a call is named that makes several rounds, its last round is meant; where one is named
    that makes several copies, all of them are, except as ``per`` says.

    Parameters
    ----------
    name : str
    prompt : tuple of Part
        What is read, in this order.
    output : LengthLaw
        What the next reader sees of the answer [tokens].
    hidden : LengthLaw, optional
        Thinking before that [tokens].
    pool : str
        Which of the cluster's models is asked.
    after : tuple of str
        Earlier calls that must have finished. In place of one (or a copy) that did not happen
        stand those that it would have followed.
    delay_ms : LengthLaw, optional
        Between those and this call: a tool, a database, a person [ms].
    probability : float
        That the call happens; for each copy.
    given : str
        The call happens only in tasks in which this earlier call did.
    copies : int
        Requests made at once, each with its own `New` text.
    per : str
        One copy for each copy of this earlier call; copy i sees copy i of it, and of all calls
        that are ``per`` it.
    loop : Loop, optional
    """

    name: str
    prompt: tuple[Part, ...]
    output: LengthLaw
    hidden: LengthLaw | None = None
    pool: str = "llm"
    after: tuple[str, ...] = ()
    delay_ms: LengthLaw | None = None
    probability: float = 1.0
    given: str = ""
    copies: int = 1
    per: str = ""
    loop: Loop | None = None

    def __post_init__(self) -> None:
        what = f"call {self.name!r}"
        whole(f"{what}: copies", self.copies)
        shares = {"probability": self.probability}
        if self.loop:
            whole(f"{what}: rounds", self.loop.rounds)
            shares["stop"] = self.loop.stop
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UsageError(f"{what}: {name} is {value:g}; between 0 and 1")
        if self.per and self.copies > 1:
            raise UsageError(f"{what}: copies are those of {self.per!r}; leave {self.copies} out")
        if not self.prompt:
            raise UsageError(f"{what} has no prompt")
        for parts in self.prompts():
            if any(isinstance(part, Prompt) for part in parts[1:]):
                raise UsageError(f"{what}: the prompt of an earlier call comes first or not at all")

    def prompts(self) -> tuple[tuple[Part, ...], ...]:
        """Parts of the first round, and of the later ones."""
        return (self.prompt, self.again.prompt or self.prompt)

    @property
    def again(self) -> Loop:
        """The loop, or one of a single round."""
        return self.loop or Loop(1)


@dataclass(frozen=True, slots=True)
class Graph:
    """Calls in an order in which they can happen.

    Parameters
    ----------
    name : str
    calls : tuple of Call
        Each after all those it names.
    source : str
        Where structure and numbers were read.
    illustrative : str
        What no source gave.

    Raises
    ------
    UsageError
        No calls, two of one name, a call that names none or a later one (a cycle), that quotes
        what it does not follow, a text of two lengths.

    Examples
    --------
    >>> from perfmodel.serving.lengths import Fixed
    >>> ask = Call("ask", (Text("question", Fixed(30)),), Fixed(100))
    >>> check = Call("check", (Output("ask"), New(Fixed(20))), Fixed(1), pool="small",
    ...              after=("ask",))
    >>> Graph("checked", (ask, check), source="").pools
    ('llm', 'small')
    """

    name: str
    calls: tuple[Call, ...]
    source: str
    illustrative: str = ""

    def __post_init__(self) -> None:
        if not self.calls:
            raise UsageError(f"graph {self.name!r} has no calls")
        earlier: dict[str, set[str]] = {}
        texts: dict[str, Part] = {}
        for call in self.calls:
            if call.name in earlier:
                raise UsageError(f"graph {self.name!r} has two calls {call.name!r}")
            for role, name in _names(call):
                if name not in earlier and (name != call.name or role != "reads"):
                    raise UsageError(f"call {call.name!r} {role} {name!r}, {self._why(name)}")
            known = {call.name}.union(*({name, *earlier[name]} for name in call.after))
            for role, name in _names(call):
                if name not in known:
                    raise UsageError(
                        f"call {call.name!r} {role} {name!r}, which it does not follow; add it "
                        "to after"
                    )
            earlier[call.name] = known - {call.name}
            self._check_parts(call, texts)

    def _why(self, name: str) -> str:
        names = [call.name for call in self.calls]
        if name not in names:
            return f"which the graph does not have{near(name, names)}"
        return "which is not before it: a graph has no cycles, a loop is rounds of one call"

    def _check_parts(self, call: Call, texts: dict[str, Part]) -> None:
        if any(isinstance(p, Prompt | Output) and p.call == call.name for p in call.prompt):
            raise UsageError(f"call {call.name!r} reads itself in its first round")
        for part in (part for parts in call.prompts() for part in parts):
            if isinstance(part, Common | Text) and texts.setdefault(part.name, part) != part:
                raise UsageError(f"graph {self.name!r}: text {part.name!r} has two lengths")
            if isinstance(part, Prompt):
                several = self.width(part.call) > 1
                if several and self.lane(part.call) != self.lane(call.name):
                    raise UsageError(
                        f"call {call.name!r} continues {part.call!r}, of which there are several "
                        "copies; say per"
                    )

    def __getitem__(self, name: str) -> Call:
        """The call of that name."""
        return next(call for call in self.calls if call.name == name)

    def lane(self, name: str) -> str:
        """The call whose copies this one goes along with; itself if none."""
        per = self[name].per
        return self.lane(per) if per else name

    def width(self, name: str) -> int:
        """Copies of a call."""
        return self[self.lane(name)].copies

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the pools, in order of first use."""
        return tuple(dict.fromkeys(call.pool for call in self.calls))


@dataclass(frozen=True, slots=True)
class Recipe:
    """What each file of `perfmodel.serving.graphs` defines as ``GRAPH``: a function of parameters.

    All parameters are numbers and have defaults.
    """

    build: Callable[..., Graph]

    @property
    def name(self) -> str:
        """The function's."""
        return self.build.__name__


GRAPHS: Registry[Recipe] = Registry("perfmodel.serving.graphs", "GRAPH", "call graph")


def parse_graph(text: str) -> Graph:
    """A known graph as written on the command line: ``chat``, ``best_of_n(n=8)``, ….

    Raises
    ------
    UsageError
        No such graph or parameter, with the nearest; a value that it cannot have.

    Examples
    --------
    >>> [call.copies for call in parse_graph("best_of_n(n=4)").calls]
    [4, 1]
    """
    name, given = spec(text)
    build = GRAPHS[name].build
    return build(**arguments(text, build, given))


def whole(name: str, value: float, least: int = 1) -> int:
    """A count, given as any number.

    Raises
    ------
    UsageError
        Not a whole number, or less than ``least``.

    Examples
    --------
    >>> whole("n", 8.0)
    8
    """
    if not (float(value).is_integer() and value >= least):
        raise UsageError(f"{name} is {value:g}; a whole number from {least}")
    return int(value)


def stop_after(name: str, mean: float) -> float:
    """Probability that a round is the last which makes so many rounds on average.

    Raises
    ------
    UsageError
        A mean below 1.

    Examples
    --------
    >>> stop_after("turns", 4)
    0.25
    """
    if not 1 <= mean < math.inf:
        raise UsageError(f"{name} is {mean:g}; at least 1")
    return 1 / mean


def pause(name: str, seconds: float, sigma: float = 0.0) -> LengthLaw | None:
    """Delay in milliseconds: of this length, or of this median and lognormal; None for none.

    Raises
    ------
    UsageError
        A negative time.

    Examples
    --------
    >>> pause("tool_s", 0.25)
    Fixed(tokens=250)
    """
    if not 0 <= seconds <= 1e5:
        raise UsageError(f"{name} is {seconds:g} s; from 0 to 100,000")
    if round(1e3 * seconds) == 0:
        return None
    return LogNormal(1e3 * seconds, sigma) if sigma else Fixed(round(1e3 * seconds))


def _names(call: Call) -> Iterator[tuple[str, str]]:
    """Calls that a call names, and what for."""
    yield from (("follows", name) for name in call.after)
    if call.given:
        yield "depends on", call.given
    if call.per:
        yield "goes along with", call.per
    for part in (part for parts in call.prompts() for part in parts):
        if isinstance(part, Prompt | Output):
            yield "reads", part.call
