"""How well the GEMM formula fits measured tables: cross-validated, and on GPUs it never saw.

    python benchmarks/calibrate_gemm.py TABLE.csv.gz [--quick] [--ablation] [--fits FOLDER]

Per system, data type and engine: rows, fitted rates (``!`` marks one on its bound), errors of a
5-fold cross-validation by layer shape; then every system as predicted from the others. Rows that
are eager or suspect are reported apart. ``--ablation`` refits without each physical term;
``--fits`` writes the rates as TOML.
"""

from __future__ import annotations

import os

# one core; read when NumPy is first imported
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

import hwdb
from perfmodel.calibrate.fit import Fit, fit
from perfmodel.calibrate.gemm import (
    GemmModel,
    device_of,
    form_of,
    gemm_model,
    generation_of,
    menu_of,
)
from perfmodel.calibrate.table import Table, counts, read_table, usable
from perfmodel.calibrate.validate import cross_validate, errors, leave_one_out
from perfmodel.time.kernels.tiles import MENUS, Menu, Tile

Key = tuple[str, str, str]
# Same die as B200's; no page that states B300's L2 has been opened.
L2_IF_UNKNOWN = 126 * 2**20
QUICK = ("h100_sxm", "h200_sxm")

ABLATIONS: dict[str, Callable[[GemmModel], GemmModel]] = {
    "everything": lambda m: m,
    "one tile of 128 x 128": lambda m: dataclasses.replace(
        m, menu=Menu("one", (Tile(128, 128),), m.menu.splits, "")
    ),
    "cuBLAS menu for all": lambda m: dataclasses.replace(m, menu=MENUS["library"]),
    "no split-K": lambda m: dataclasses.replace(m, menu=dataclasses.replace(m.menu, splits=(1,))),
    "no wave time": lambda m: _hold(m, wave_time=0.0),
    "no step latency": lambda m: _hold(m, step_latency=0.0),
    "no feed rate": lambda m: _hold(m, feed_rate=1e18),
    "no feed at all": lambda m: _hold(m, feed_rate=1e18, step_latency=0.0),
    "no droop": lambda m: _hold(m, droop=0.0),
    "all operands cold": lambda m: dataclasses.replace(
        m, weight_hot=0 * m.weight_hot, act_hot=0 * m.act_hot
    ),
    "no quantising pass": lambda m: dataclasses.replace(
        m, form=dataclasses.replace(m.form, quantised=False)
    ),
    "no unpacking": lambda m: dataclasses.replace(
        m, form=dataclasses.replace(m.form, unpacked=False)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--quick", action="store_true", help="two systems")
    parser.add_argument("--ablation", action="store_true", help="refit without each term")
    parser.add_argument("--fits", type=Path, help="folder for the fitted rates")
    asked = parser.parse_args()
    rows, apart = usable(read_table(asked.table))
    print(f"{len(rows)} rows; set aside: {counts(apart) or 'none'}")
    models = {
        key: _model(key, part)
        for key, part in rows.groups(("system", "dtype", "backend")).items()
        if not asked.quick or key[0] in QUICK
    }
    if asked.ablation:
        return _ablate(models)
    fits = _fit_all(models)
    crossed = _cross(models, fits)
    _summary("cross-validated by", crossed)
    _summary("system left out, by", _leave_out(models))
    if asked.fits:
        _write(asked.fits, fits, models, crossed)
    return None


def _model(key: tuple[str, ...], part: Table) -> GemmModel:
    system, dtype, backend = key
    gpu = hwdb.gpu(system)
    device = device_of(gpu, form_of(dtype), L2_IF_UNKNOWN)
    return gemm_model(part, device, dtype, backend, menu_of(backend, dtype, generation_of(gpu)))


def _hold(model: GemmModel, **rates: float) -> GemmModel:
    return dataclasses.replace(model, without=tuple(rates.items()))


def _fit_all(models: dict[Key, GemmModel]) -> dict[Key, Fit]:
    fits: dict[Key, Fit] = {}
    spent: dict[str, float] = defaultdict(float)
    for key, model in models.items():
        start = time.process_time()
        fits[key] = fit(model)
        spent[key[0]] += time.process_time() - start
    slowest = max(spent, key=lambda system: spent[system])
    print(f"slowest system to fit: {slowest}, {spent[slowest]:.1f} CPU-seconds")
    return fits


def _cross(models: dict[Key, GemmModel], fits: dict[Key, Fit]) -> dict[Key, tuple]:
    found: dict[Key, tuple] = {}
    print("\nsystem               dtype     engine  menu           cross-validated error, rates")
    for key, model in models.items():
        found[key] = cross_validate(model)
        bounds = fits[key].at_bounds()
        rates = " ".join(
            f"{name}={value:.3g}{'!' if name in bounds else ''}"
            for name, value in fits[key].values.items()
        )
        system, dtype, backend = key
        head = f"{system:20s} {dtype:9s} {backend:7s} {model.menu.name:14s}"
        print(f"{head} {errors(*found[key])}\n    {rates}", flush=True)
    return found


def _leave_out(models: dict[Key, GemmModel]) -> dict[Key, tuple]:
    found: dict[Key, tuple] = {}
    kinds = dict.fromkeys(key[1:] for key in models)
    for kind in kinds:
        systems = {key[0]: model for key, model in models.items() if key[1:] == kind}
        if len(systems) < 2:
            continue
        generation = {system: generation_of(hwdb.gpu(system)) for system in systems}
        left = leave_one_out(_common(systems), generation)
        found |= {(system, *kind): one for system, one in left.items()}
    return found


def _common(systems: dict[str, GemmModel]) -> dict[str, GemmModel]:
    """Models with one menu's parameters, so that their rates can be pooled."""
    split = {max(model.menu.splits) > 1 for model in systems.values()}
    if len(split) == 1:
        return systems
    return {name: model for name, model in systems.items() if max(model.menu.splits) == 1}


def _summary(title: str, found: dict[Key, tuple]) -> None:
    for place, name in ((1, "dtype"), (2, "engine"), (0, "system")):
        print(f"\n{title} {name}")
        kinds = sorted({key[place] for key in found})
        for kind in kinds:
            print(f"{kind:20s} {_pooled(found, lambda key, k=kind, p=place: key[p] == k)}")
    print(f"{'all':20s} {_pooled(found, lambda key: True)}")


def _pooled(found: dict[Key, tuple], keep: Callable[[Key], bool]) -> object:
    parts = [one for key, one in found.items() if keep(key)]
    left, widths = (np.concatenate(part) for part in zip(*parts, strict=True))
    return errors(left, widths)


def _ablate(models: dict[Key, GemmModel]) -> None:
    for name, change in ABLATIONS.items():
        left = []
        for model in models.values():
            changed = change(model)
            left.append(changed.residuals(fit(changed).logs))
        print(f"{name:24s} {errors(np.concatenate(left))}", flush=True)


def _write(
    folder: Path, fits: dict[Key, Fit], models: dict[Key, GemmModel], crossed: dict[Key, tuple]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for system in dict.fromkeys(key[0] for key in fits):
        lines = [f"# GEMM rates of {system}; covariance is of the natural logs of the rates"]
        for (_, dtype, backend), found in ((k, f) for k, f in fits.items() if k[0] == system):
            figures = errors(*crossed[system, dtype, backend])
            lines += [
                f"\n[gemm.{dtype}.{backend}]",
                f'menu = "{models[system, dtype, backend].menu.name}"',
                f"n = {found.n}",
                f"median_ape = {figures.median:.4f}",
                f"mape = {figures.mean:.4f}",
                f"p90 = {figures.p90:.4f}",
                f"bias = {figures.bias:.4f}",
                f"coverage = {figures.coverage:.4f}",
                f"tail = {found.tail:.4f}",
                f"at_bounds = {list(found.at_bounds())}".replace("'", '"'),
            ]
            lines += [
                f'{p.name} = "{found.values[p.name]:.4g}{"" if p.unit == "1" else " " + p.unit}"'
                for p in found.parameters
            ]
            matrix = [[float(f"{cell:.3g}") for cell in row] for row in found.covariance]
            lines.append(f"covariance = {matrix}")
        (folder / f"{system}.toml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
