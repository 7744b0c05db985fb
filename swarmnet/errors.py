"""What can go wrong in a swarm, whose act it was, and what to do next.

    SwarmnetError                  exit code 1: our own bug if it reaches the user
    ├── UserError                  2: something typed or configured; the message names the mend
    │   ├── ConfigError               a run or peer file, or a --set
    │   ├── InviteError               an invite string
    │   ├── DataError                 a data path or the text behind it
    │   ├── ModelError                a model section or a model folder
    │   ├── IdentityError             an identity file
    │   ├── AddressError              a multiaddr, or a port in use
    │   └── RunMismatchError          this peer holds another run than the swarm
    ├── UnreachableError           3: nobody of the swarm answers
    ├── StopRequested              4: a signal or the owner told us to leave
    ├── LinkError                  nobody's act: the network; the exchange is lost, training goes on
    │   ├── StreamCut                 the stream ended before the message did
    │   ├── DeadlinePassed            no progress within the deadline
    │   ├── DonorBusy                 it has nothing to give now; ask again later
    │   └── NotKept                   it does not have this, and says so
    ├── PeerFault                  a partner's act: drop the partner's message, never our state
    │   ├── FrameError                bytes that are no frame of ours, or too long
    │   ├── MessageError              a frame whose content has the wrong shape
    │   └── PayloadError              a payload of the wrong size, or not finite
    │       └── SampleRefused            microbatches that do not fit, or whose numbers broke
    ├── StaleVersion               nobody's act: the weights moved on; begin again with the new ones
    └── StorageError               the disk: the previous checkpoint survives

A lost partner is data and not an exception: ``LinkError`` and ``PeerFault`` end one exchange
and are turned into an event at one place, the exchange driver.
"""

from __future__ import annotations


class SwarmnetError(Exception):
    """Base of all errors of this project; by itself it means a bug of ours."""

    exit_code = 1


class UserError(SwarmnetError):
    """The user's act. The message is one line and says what to change; nothing was lost."""

    exit_code = 2


class ConfigError(UserError):
    """A run file, a peer file or a ``--set`` says something that cannot be."""


class InviteError(UserError):
    """The invite is no invite of ours, or was damaged on its way: ask for it again."""


class DataError(UserError):
    """The data path does not exist, holds no text, or is another corpus than the run's."""


class ModelError(UserError):
    """The model section or the model folder does not describe a causal language model."""


class IdentityError(UserError):
    """The identity file is not an Ed25519 key of the shape that this project writes."""


class AddressError(UserError):
    """A multiaddr that does not parse, or a port that somebody else holds."""


class RunMismatchError(UserError):
    """The swarm trains another run than this peer's file says; the message names the keys."""


class UnreachableError(SwarmnetError):
    """No bootstrap and no known peer answers: check the network, then the invite's age."""

    exit_code = 3


class StopRequested(SwarmnetError):
    """A signal, or the owner's key, told this peer to leave; it left cleanly."""

    exit_code = 4


class LinkError(SwarmnetError):
    """The network failed between two healthy peers; the exchange is lost, training goes on."""


class StreamCut(LinkError):
    """The stream ended in the middle of a message."""


class DeadlinePassed(LinkError):
    """A partner made no progress within the deadline derived from observed links."""


class DonorBusy(LinkError):
    """A donor serves as many as it may, or has no sound state itself: ask after ``retry_s``."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class NotKept(LinkError):
    """A donor does not have what it was asked for, and soundly says so."""


class PeerFault(SwarmnetError):
    """A partner sent what it must not send; its message is dropped, our state is untouched."""


class FrameError(PeerFault):
    """Wrong magic, wrong version, unknown kind, or a length above the bound of its kind."""


class MessageError(PeerFault):
    """A frame of the right kind whose content has the wrong keys, types or ranges."""


class PayloadError(PeerFault):
    """A tensor payload of the wrong size or with values that are not finite."""


class SampleRefused(PayloadError):
    """Microbatches whose shapes do not fit or whose numbers are not finite; nothing was counted.

    ``samples`` names them, so that the others of their batch can go again without them.
    """

    def __init__(self, message: str, samples: tuple[int, ...]) -> None:
        super().__init__(f"{message}: sample {', '.join(f'{sample:016x}' for sample in samples)}")
        self.samples = samples


class StaleVersion(SwarmnetError):
    """The weights of that version are gone: go through the stage again with the current ones."""


class StorageError(SwarmnetError):
    """The disk refused (full, read-only, gone). The previous checkpoint is still whole."""
