"""Serve an agent over the Responses protocol, and query it from a terminal."""

from oneturn.serving.app import application
from oneturn.serving.server import load_logged, running_server, serve
from oneturn.serving.terminal import ask

__all__ = [
    "application",
    "ask",
    "load_logged",
    "running_server",
    "serve",
]
