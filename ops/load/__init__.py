"""Load tests that anyone can run against the service wherever it runs, on Locust, with a verdict."""
