"""What travels with the agent."""

GREETING = "Good morning"
