"""The boundary for any existing model: activations cross as they are, or through a codec."""

from __future__ import annotations

from swarmnet.boundary._wire import Coded, CodedConfig


class Plain(Coded):
    """Changes nothing of the model; ``codec`` says in which form its activations travel."""

    class Config(CodedConfig):
        pass

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config
