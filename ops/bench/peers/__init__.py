"""The peers: the same three endpoints in other frameworks and styles. All but one are without telemetry."""
