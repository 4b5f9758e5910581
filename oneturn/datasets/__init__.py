"""The examples that an agent is taught and judged by: checked, and found in what it was asked in production."""
