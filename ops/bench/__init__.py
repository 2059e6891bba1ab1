"""Compares the service with other ways to build it: CPU per request, latency and rate, measured in turns."""
