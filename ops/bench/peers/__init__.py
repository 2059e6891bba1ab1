"""The same three endpoints as others would write them: each idiomatic, small and without telemetry."""
