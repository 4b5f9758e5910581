"""The page at ``GET /``, on which a person asks the agent, approves calls and gives feedback.

The files in ``static`` are its HTML, its styles and its JavaScript modules, without a build step.
"""
