"""The agent on Databricks: its credentials, LM, retriever, tools, and its way into production.

Needs the extra: ``pip install "oneturn[databricks]"``.
"""
