"""The one door to hivemind: what this folder uses of it, imported quietly.

Importing hivemind trips over a deprecation in torch, installs a log handler and renames a log
level, and every start of its daemon calls a deprecated function. All of that is undone here, so
that a program that uses us keeps its own logging and may treat warnings as errors.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path
from types import ModuleType

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
    from hivemind.dht.node import DHTNode
    from hivemind.dht.routing import DHTID
    from hivemind.dht.validation import DHTRecord, RecordValidatorBase
    from hivemind.p2p import P2P, PeerID, p2p_daemon
    from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError
    from hivemind.proto import p2pd_pb2
    from hivemind.utils import MSGPackSerializer
    from hivemind.utils.logging import use_hivemind_log_handler
    from hivemind.utils.multiaddr import Multiaddr as DaemonMultiaddr

__all__ = [
    "DHTID",
    "P2P",
    "DHTNode",
    "DHTRecord",
    "DaemonMultiaddr",
    "MSGPackSerializer",
    "P2PDaemonError",
    "PeerID",
    "RecordValidatorBase",
    "p2pd_pb2",
]


def _resource_path(package: ModuleType, name: str) -> AbstractContextManager[Path]:
    return as_file(files(package) / name)


p2p_daemon.path = _resource_path
use_hivemind_log_handler("nowhere")
logging.addLevelName(logging.WARNING, "WARNING")
logging.getLogger("hivemind").setLevel(logging.ERROR)
