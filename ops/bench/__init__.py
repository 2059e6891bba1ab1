"""The service beside what one would build instead: CPU per request, latency and rate, measured in turns."""
