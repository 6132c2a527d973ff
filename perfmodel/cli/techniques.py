"""``perfmodel techniques``: the what-if levers."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from perfmodel.cli import render
from perfmodel.core.registry import Registry

app = App(name="techniques", help="Techniques that --with can switch on.")


@app.command
def ls(
    *, json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False
) -> None:
    """List the registered techniques.

    Parameters
    ----------
    json : bool
        Print JSON.
    """
    known: Registry[object] = Registry("perfmodel.techniques", "TECHNIQUE", "technique")
    names = list(known)
    if json:
        render.emit(render.to_json(names), None)
    else:
        render.emit("\n".join(names) if names else "no techniques are registered yet", None)
