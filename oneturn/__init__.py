"""oneturn: declare a single-turn DSPy agent, compile it, serve it as an MLflow ResponsesAgent."""
