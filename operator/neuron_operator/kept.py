"""The objects of a kind as a list and a watch tell of them (`extender.watching.follow`), each as a small projection.

Answers to our own writes come in too, so that the next plan need not wait for the watch. They may overtake it, and it
them: the higher resource version wins, and an answer about something that is gone by then is dropped.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from neuron_operator.fleet import key as key_of

Json = Mapping[str, Any]
T = TypeVar("T")


class Kept(Generic[T]):
    """The objects of a kind, projected; `moved(key, before, after)` is called for each that changes, `whole()` after
    each complete list.
    """

    def __init__(
        self,
        project: Callable[[Any], T | None],
        moved: Callable[[str, T | None, T | None], None],
        whole: Callable[[], None],
    ) -> None:
        self._project = project
        self._moved = moved
        self._whole = whole
        self._versions: dict[str, int] = {}
        self.values: dict[str, T] = {}
        self.complete = False

    def version(self, key: str) -> str | None:
        """The resource version in which an object was last seen; None: there is none."""
        version = self._versions.get(key)
        return None if version is None else str(version)

    def listed(self, items: Iterable[Json], asked: float = 0.0) -> None:
        """A complete list; what is not in it is gone."""
        self.complete = True
        found = {key_of(item): item for item in items}
        for key in self._versions.keys() - found.keys():
            self.gone(key)
        for item in found.values():
            self.seen(item, False)
        self._whole()

    def seen(self, item: Json, deleted: bool) -> None:
        """An event of the watch."""
        key, version = key_of(item), int(item["metadata"]["resourceVersion"])
        if deleted:
            # an answer may have told already of another one with this name
            if version >= self._versions.get(key, -1):
                self.gone(key)
        elif version > self._versions.get(key, -1):
            self._versions[key] = version
            self._set(key, self._project(item))

    def answered(self, item: Json) -> None:
        """The API server's answer to a write on something that was there."""
        if key_of(item) in self._versions:
            self.seen(item, False)

    def gone(self, key: str) -> None:
        """It is not there any more."""
        self._versions.pop(key, None)
        self._set(key, None)

    def _set(self, key: str, after: T | None) -> None:
        before = self.values.get(key)
        if after is None:
            self.values.pop(key, None)
        else:
            self.values[key] = after
        if before != after:
            self._moved(key, before, after)
