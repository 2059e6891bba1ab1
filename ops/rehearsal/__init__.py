"""The whole deployment on one machine, against a mock AWS and a fake cluster."""
