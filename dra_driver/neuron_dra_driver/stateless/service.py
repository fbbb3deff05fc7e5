"""When such a driver is there: its sockets for as long as the node offers something or a claim has something.

Most nodes have nothing for it, and there the kubelet is not told of it. A node that offers nothing any more keeps the
sockets until the last claim is unprepared, because a kubelet without its driver cannot end pods.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from ..kubeletplugin import HealthMonitor, KubeletPlugin
from ..kubeletplugin.sockets import remove_dead
from ..prepared.cdi import CdiFolder
from ..records.checkpoint import Entry
from .driver import StatelessDriver

RECONCILE_EVERY = 300.0


class StatelessService:
    """See the module. `serve` and `reconcile` are to be run again whenever they end."""

    def __init__(
        self,
        make: Callable[[CdiFolder, Callable[[], None]], StatelessDriver],
        *,
        driver_name: str,
        plugins_dir: Path,
        registry_dir: Path,
        cdi_dir: Path,
        instance: str | None,
        health: HealthMonitor | None = None,
    ) -> None:
        """`make` makes the driver, given its folder and what to call when files may have come or gone; `health` is what
        it says about its devices.
        """
        self._driver_name = driver_name
        self._plugins_dir = plugins_dir
        self._registry_dir = registry_dir
        self._cdi = CdiFolder(cdi_dir, driver=driver_name)
        self._due = asyncio.Event()
        self._driver = make(self._cdi, self._due.set)
        self._plugin = KubeletPlugin(
            self._driver,
            driver_name=driver_name,
            plugins_dir=plugins_dir,
            registry_dir=registry_dir,
            instance=instance,
            health=health,
        )
        self._offers: bool | None = None
        """None: it is not known yet what the node is."""

    def offer(self, offers: bool) -> None:
        """Say whether the node has anything for claims."""
        self._offers = offers
        self._due.set()

    def prepared(self) -> Iterable[Entry]:
        """The claims that are prepared."""
        return self._driver.prepared()

    async def serve(self) -> None:
        """Serve the kubelet whenever, and for as long as, somebody needs it."""
        while True:
            try:
                if self._needed():
                    async with self._plugin:
                        while self._needed():
                            await self._change()
            finally:
                self._tidy()
            await self._change()

    async def reconcile(self) -> None:
        """Remove what is left of claims that are gone, at the start and every few minutes."""
        while True:
            await self._driver.reconcile()
            await asyncio.sleep(RECONCILE_EVERY)

    def _needed(self) -> bool:
        return bool(self._offers or self._cdi.claims())

    async def _change(self) -> None:
        await self._due.wait()
        self._due.clear()

    def _tidy(self) -> None:
        """Leave nothing where nobody needs this driver, neither of this process nor of one that was killed."""
        if self._offers is None or self._needed():
            return
        remove_dead(self._plugins_dir, self._registry_dir, driver_name=self._driver_name)
        with contextlib.suppress(OSError):
            (self._plugins_dir / self._driver_name).rmdir()  # not while another agent serves there
