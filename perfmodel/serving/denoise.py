"""Diffusion as a workload: a request is a loop of denoising steps over a latent of fixed size.

One step of the loop is one step of the engine, so a request has as many output tokens as steps.
It reads and writes no KV cache: what a step costs, and that nothing grows, is for the step-time
surface to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.core.errors import UsageError, near
from perfmodel.serving import arrivals
from perfmodel.serving.arrivals import Process
from perfmodel.serving.lengths import Fixed, LengthLaw
from perfmodel.serving.requests import Requests
from perfmodel.serving.workload import generate


@dataclass(frozen=True, slots=True)
class DenoiseLoop:
    """A way to sample an image.

    Parameters
    ----------
    steps : LengthLaw
    passes : int
        Evaluations of the network per step: 2 with classifier-free guidance, which needs the
        prediction with and without the prompt, else 1.
    source : str
    """

    steps: LengthLaw
    passes: int
    source: str

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise UsageError(f"{self.passes} passes per denoising step; at least 1")


LOOPS: dict[str, DenoiseLoop] = {
    "sdxl": DenoiseLoop(
        Fixed(50),
        passes=2,
        source="deepinfra.com/stability-ai/sdxl/api: num_inference_steps 50 and guidance_scale 7.5 "
        "by default",
    ),
    "sdxl-lightning": DenoiseLoop(
        Fixed(4),
        passes=1,
        source="huggingface.co/ByteDance/SDXL-Lightning: checkpoints of 1, 2, 4 and 8 steps, used "
        "with guidance_scale 0",
    ),
}


def denoise_loop(name: str) -> DenoiseLoop:
    """The loop of that name.

    Raises
    ------
    UsageError
        There is none; the message names the nearest.

    Examples
    --------
    >>> denoise_loop("sdxl").steps.mean * denoise_loop("sdxl").passes
    100.0
    """
    if name not in LOOPS:
        raise UsageError(
            f"no denoising loop {name!r}{near(name, LOOPS)}; one of: {', '.join(LOOPS)}"
        )
    return LOOPS[name]


def denoise_requests(
    steps: LengthLaw,
    count: int,
    rate: float,
    *,
    process: Process = arrivals.poisson,
    seed: int = 0,
) -> Requests:
    """Requests for images: prompt 1, as many outputs as denoising steps.

    Parameters
    ----------
    steps : LengthLaw
    count : int
        Images, at least 1.
    rate : float
        Mean rate [1/s]; infinite: all at time 0.
    process : Process
    seed : int
        Equal seeds give equal bits.

    Raises
    ------
    UsageError
        As `generate`.

    Examples
    --------
    >>> requests = denoise_requests(Fixed(50), 3, 1.0)
    >>> requests.prompt.tolist(), requests.output.tolist()
    ([1, 1, 1], [50, 50, 50])
    """
    return generate(Fixed(1), steps, count, rate, process=process, seed=seed)
