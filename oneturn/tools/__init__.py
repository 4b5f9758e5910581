"""Tools: what is declared of them, how they run, how results and failures are told."""
