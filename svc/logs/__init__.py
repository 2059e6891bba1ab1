"""Structured logs: the catalogue of their names, the set-up of logging, and the line writer."""
