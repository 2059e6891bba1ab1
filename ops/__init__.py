"""What is done to and around the service: benchmarks, load, deployment, shipping of its signals."""
