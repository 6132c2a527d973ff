"""A registry is a folder: one module per entry, plus what plug-ins add through entry points.

Used for metrics and techniques (hardware and presets are data folders of their own). Adding an
entry is adding a file; two entries of one name are an error, found when the registry is first read.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from perfmodel.core.errors import UsageError, near

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Entries found by scanning a package's modules for one attribute, sorted by name.

    Parameters
    ----------
    package : str
        Dotted name of the folder to scan.
    attribute : str
        What each module must define; its ``name`` is the key.
    what : str
        Noun for messages.
    """

    def __init__(self, package: str, attribute: str, what: str) -> None:
        self._package, self._attribute, self._what = package, attribute, what
        self._entries: dict[str, T] | None = None

    def _all(self) -> dict[str, T]:
        if self._entries is None:
            found: dict[str, T] = {}
            for entry in self._scan():
                name = str(entry.name)
                if name in found:
                    raise ValueError(f"two {self._what}s are called {name}")
                found[name] = entry
            self._entries = dict(sorted(found.items()))
        return self._entries

    def _scan(self) -> Iterator[Any]:
        folder = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(folder.__path__):
            if not module.name.startswith("_") and not module.ispkg:
                loaded = importlib.import_module(f"{self._package}.{module.name}")
                if hasattr(loaded, self._attribute):
                    yield getattr(loaded, self._attribute)
        from importlib.metadata import entry_points

        for point in entry_points(group=self._package):
            yield point.load()

    def __getitem__(self, name: str) -> T:
        entries = self._all()
        if name not in entries:
            raise UsageError(f"no {self._what} named {name!r}{near(name, entries)}")
        return entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
