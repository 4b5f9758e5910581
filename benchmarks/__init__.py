"""Measurements that anyone can repeat: each script says what it measured, on which machine, with which versions."""
