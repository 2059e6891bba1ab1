"""HTTP for this service: connections and their limits, requests and responses, routes, API keys, errors."""
