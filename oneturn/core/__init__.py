"""What several rooms need: steps, run context, usage, tracing, serialization, secrets, credentials."""
