"""The `lastgood` command of lastgood: options, output, exit codes; one module of `commands` for each command."""

from flows.cli.app import main

__all__ = ["main"]
