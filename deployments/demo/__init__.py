"""The whole story on an embedded example: back up a live application, lose it, get it back, prove it."""

from deployments.demo.story import run_demo, stop_demo

__all__ = ["run_demo", "stop_demo"]
