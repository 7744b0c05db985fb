"""Serves a peer's page over HTTP, in the network's loop.

A page in the user's browser is a way in for every other page that is open there. Hence: a request
must name us by an address or as ``localhost`` (no other site's name can be made to point here), and
one that changes something must carry a header that a foreign page cannot send unasked.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Self

from aiohttp import web

from peers.station import Station
from peers.status.facts import Facts
from swarmnet.config import split_address
from swarmnet.errors import AddressError
from swarmnet.events import PageOpened
from swarmnet.exchange.membership import Status

ASKED_BY = "X-Swarmnet"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'unsafe-inline'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """One peer's page; ``open`` in the network's loop, with which it ends."""

    def __init__(self, station: Station, status: Callable[[], Status]) -> None:
        self.facts = Facts(station, status)
        self._station = station
        app = web.Application(middlewares=[guarded], client_max_size=1024)
        app.router.add_get("/", _asset("page.html", "text/html"))
        app.router.add_get("/page.js", _asset("page.js", "text/javascript"))
        app.router.add_get("/status", self._status)
        for order in ("pause", "resume", "leave"):
            app.router.add_post(f"/{order}", self._order)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)

    async def open(self) -> Self:
        """Raises AddressError when the address of the peer file cannot be listened on."""
        address = self._station.peer.status
        host, port = split_address(address)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise AddressError(f"status = {address!r}: {error.strerror}") from error
        self._open = asyncio.create_task(self._until_the_end())
        bound = self._runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self._station.log.emit(PageOpened(f"http://{shown}:{bound[1]}/"))
        return self

    async def _until_the_end(self) -> None:
        """To the last moment: whoever leaves by the page wants to see that."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._runner.cleanup()

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(self.facts.now())

    async def _order(self, request: web.Request) -> web.Response:
        order = request.path.removeprefix("/")
        if order == "leave":
            self._station.stop.set("the status page")
        else:
            self._station.pause.wanted = order == "pause"
        return web.Response(status=204)


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses what another site may have sent."""
    if not _names_an_address(request.host):
        raise web.HTTPMisdirectedRequest(text="ask by address, or as localhost\n")
    if request.method != "GET":
        origin = request.headers.get("Origin")
        if ASKED_BY not in request.headers or origin not in (None, f"http://{request.host}"):
            raise web.HTTPForbidden(text=f"only this page may ask; scripts send {ASKED_BY}: 1\n")
    answer = await handler(request)
    answer.headers.update(HEADERS)
    return answer


def _names_an_address(host: str) -> bool:
    """A name that somebody else owns may resolve to this machine; a number or localhost not."""
    bare = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if bare == "localhost":
        return True
    try:
        ipaddress.ip_address(bare.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _asset(name: str, kind: str) -> Handler:
    async def give(_: web.Request) -> web.Response:
        text = files("peers.status").joinpath(name).read_text(encoding="utf-8")
        return web.Response(text=text, content_type=kind)

    return give
