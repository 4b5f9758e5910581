"""What serving costs: an agent in process and served, beside bare ``dspy.ReAct`` and an adapter like the examples'."""
