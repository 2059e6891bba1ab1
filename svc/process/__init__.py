"""The server process: sockets, signals, worker processes, draining and shutdown."""
