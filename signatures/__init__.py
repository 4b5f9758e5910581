"""Typed DSPy signatures: the inputs and outputs of the agent."""
