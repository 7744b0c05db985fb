"""swarmnet: train one model on computers that come and go."""

__version__ = "0.1.0"
