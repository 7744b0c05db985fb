"""Which way a peer is reached at present: straight, or through a relay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from multiaddr import Multiaddr

from swarmnet.events import PathSeen
from swarmnet.net.contacts import CIRCUIT


class Paths:
    """Remembers the ways in use and tells what changed."""

    def __init__(self) -> None:
        self._paths: dict[str, PathSeen] = {}

    @property
    def now(self) -> dict[str, str]:
        """``direct`` or ``relayed``, by peer."""
        return {peer: path.path for peer, path in self._paths.items()}

    @property
    def direct(self) -> set[str]:
        return {peer for peer, way in self.now.items() if way == "direct"}

    def changes(self, connected: Mapping[str, Iterable[Multiaddr]]) -> list[PathSeen]:
        """Against the last look."""
        paths = {peer: path_of(peer, addresses) for peer, addresses in connected.items()}
        lost = [PathSeen(peer, "lost") for peer in self._paths if peer not in paths]
        changed = [path for peer, path in paths.items() if path != self._paths.get(peer)]
        self._paths = paths
        return lost + changed


def path_of(peer: str, addresses: Iterable[Multiaddr]) -> PathSeen:
    """The best of the connections to one peer: new streams take the direct one."""
    texts = [str(address) for address in addresses]
    if any(CIRCUIT not in text for text in texts):
        return PathSeen(peer, "direct")
    relay = texts[0].split(f"/{CIRCUIT}")[0].rpartition("/p2p/")[2] if texts else ""
    return PathSeen(peer, "relayed", relay)
