"""The pure engine: (state, event) -> decision, without I/O."""
