"""Load tests with Locust against the service, wherever it runs. Each run ends with a verdict."""
