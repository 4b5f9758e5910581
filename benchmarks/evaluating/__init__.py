"""Measure the overhead of batch evaluation: `oneturn.evaluate`, `dspy.Evaluate`, `mlflow.genai.evaluate`."""
