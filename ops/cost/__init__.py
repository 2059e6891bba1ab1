"""What a deployment costs a month, by part and by rate of requests."""
