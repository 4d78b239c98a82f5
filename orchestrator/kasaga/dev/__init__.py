"""Real servers for development: what `kasaga dev`, the demo, the benchmark and the integration tests run on.

Nothing in production imports this package. It needs the extra `kasaga[dev]` only for what the machine lacks.
"""
