"""Tests of the clients API: they talk to real PostgreSQL and real sockets."""
