"""Batch evaluation, measured side by side: ours, `dspy.Evaluate`, `mlflow.genai.evaluate`."""
