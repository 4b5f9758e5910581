"""The support desk's data: handbook, orders, examples, and compiled programs."""
