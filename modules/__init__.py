"""How the agent keeps its promise: the module, its tools, its retriever."""
