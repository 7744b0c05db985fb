"""Looks out for the notice that this machine will be taken away, beside everything else."""

from __future__ import annotations

import logging
import threading

from peers.stop import Stop
from swarmnet.notice import Notice

log = logging.getLogger(__name__)


def watch(notice: Notice, every_s: float, stop: Stop) -> threading.Thread:
    """Until ``stop`` is set, by the notice or otherwise. What cannot be asked is one warning."""

    def look_out() -> None:
        warned = False
        while not stop:
            try:
                reason = notice.look()
            except OSError as error:
                reason = None
                if not warned:
                    log.warning("whether this machine will be taken cannot be asked: %s", error)
                    warned = True
            if reason is not None:
                stop.set(f"notice: {reason}")
            stop.wait(every_s)

    thread = threading.Thread(target=look_out, name="swarmnet-notice", daemon=True)
    thread.start()
    return thread
