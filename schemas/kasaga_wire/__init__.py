"""What the orchestrator and the participants must agree on, byte for byte."""

from .contracts import Contract, command, compensation, contract_of, participant

__version__ = "0.1.0"

__all__ = ["Contract", "__version__", "command", "compensation", "contract_of", "participant"]
