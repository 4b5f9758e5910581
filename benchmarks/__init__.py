"""Reproducible measurements. Each script records what it measured, on which machine, with which versions."""
