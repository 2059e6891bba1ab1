"""Drills: each breaks one thing under load, then compares what callers saw with what the table contains."""
