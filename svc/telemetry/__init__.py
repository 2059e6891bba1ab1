"""What the service tells about itself while it runs; it knows HTTP, and nothing of clients."""
