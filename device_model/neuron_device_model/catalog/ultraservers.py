"""The UltraServers: how many servers form one, and how they are joined."""

from dataclasses import dataclass
from functools import cache

from neuron_device_model.catalog.documents import document
from neuron_device_model.catalog.rows import Row, reading


@dataclass(frozen=True, slots=True)
class UltraServerType:
    """One kind of UltraServer. Servers are numbered from 0."""

    name: str
    title: str
    servers: int
    chips_per_server: int
    topology: str
    """torus3d: equal chips of the servers form a ring. switch: servers meet in switches, see below."""
    shape: tuple[int, ...]
    """Of all chips, numbered server by server."""
    switch_groups: tuple[tuple[int, ...], ...]
    """The servers behind each switch; empty where chips are wired directly."""
    server_links: tuple[tuple[int, ...], ...]
    """Pairs of servers whose equal chips are wired directly."""
    switch_bytes_per_s: int
    """Of one chip, through a switch to chips of other servers, both directions together."""
    link_bytes_per_s: int
    """Of one chip, over its direct links to other servers, all links and both directions together."""
    source: str
    chosen: tuple[str, ...]

    @property
    def chips(self) -> int:
        """Chips of the whole UltraServer."""
        return self.servers * self.chips_per_server


@cache
def ultraserver_types() -> tuple[UltraServerType, ...]:
    """Every kind of UltraServer. An instance type names the one that it is a member of."""
    return tuple(load_ultraservers(document("ultraservers.toml")))


def ultraserver_type(name: str) -> UltraServerType:
    """The kind of UltraServer that an instance type names."""
    return next(kind for kind in ultraserver_types() if kind.name == name)


def load_ultraservers(rows: Row) -> list[UltraServerType]:
    """Read an UltraServer file."""
    found = []
    with reading(rows) as file:
        for row in file.rows("ultraserver"):
            with reading(row):
                found.append(
                    UltraServerType(
                        name=row.text("name"),
                        title=row.text("title"),
                        servers=row.integer("servers"),
                        chips_per_server=row.integer("chips_per_server"),
                        topology=row.text("topology"),
                        shape=row.integers("shape"),
                        switch_groups=row.integer_arrays("switch_groups"),
                        server_links=row.integer_arrays("server_links"),
                        switch_bytes_per_s=row.bandwidth("switch_bandwidth"),
                        link_bytes_per_s=row.bandwidth("link_bandwidth"),
                        source=row.text("source"),
                        chosen=row.optional_texts("chosen"),
                    )
                )
    return found
