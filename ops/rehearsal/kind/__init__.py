"""A rehearsal on a real cluster: nodes of kind as containers, with an image registry and PostgreSQL beside them."""
