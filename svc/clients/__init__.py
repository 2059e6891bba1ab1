"""The clients API: the rules for ids, names and money, the queries, and the endpoints."""
