"""``oneturn demo``."""

from __future__ import annotations

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


def demo(agent: AgentFile = AGENT_FILE, config: ConfigFile = None) -> None:
    """Show the whole way on this machine: measure, log, serve, ask.

    Examples:

        oneturn demo
    """
    loaded = load(agent, config)

    from oneturn.cli.walkthrough import demo

    demo(loaded)
