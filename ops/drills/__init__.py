"""Drills: one thing is broken under load, and what callers saw and what the table holds are compared."""
