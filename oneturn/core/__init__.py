"""Shared building blocks: steps, run context, usage, tracing, serialization, secrets, credentials."""
