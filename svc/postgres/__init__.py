"""PostgreSQL: the connection pool, batching, queries, migrations, and the embedded server."""
