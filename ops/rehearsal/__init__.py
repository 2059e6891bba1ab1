"""The whole deployment on one machine, against a mock of AWS."""
