"""What the orchestrator and the participants must agree on, byte for byte."""

__version__ = "0.1.0"
