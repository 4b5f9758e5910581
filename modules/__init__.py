"""The agent module and its tools."""
