"""How the support desk is judged and compiled: its metric and its recipes."""
