"""What the agent promises: DSPy signatures, typed."""
