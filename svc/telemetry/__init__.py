"""Logs, metrics and traces of requests. This package depends on HTTP and on database batches, not on clients."""
