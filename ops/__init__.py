"""Tools to run around the service: benchmarks, load tests, deployment, and the shipping of its telemetry."""
