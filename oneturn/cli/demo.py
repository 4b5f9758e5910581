"""``oneturn demo``."""

from __future__ import annotations

from oneturn.cli.options import AGENT_FILE, AgentFile, ConfigFile, load


def demo(agent: AgentFile = AGENT_FILE, config: ConfigFile = None) -> None:
    """Run the complete workflow on this machine: evaluate, log, serve, query.

    Examples:

        oneturn demo
    """
    loaded = load(agent, config)

    from oneturn.cli.walkthrough import demo

    demo(loaded)
