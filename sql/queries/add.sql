-- Adds a client and answers its id.
INSERT INTO clients (name, money) VALUES ($1, $2) RETURNING id
