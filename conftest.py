"""Fixtures are plugins, one file for each thing: see integration/fix_*.py. Nothing starts unasked."""

pytest_plugins = ["fix_servers", "fix_proxy", "fix_helm"]
