"""The prediction log in PostgreSQL, feedback, and the queries and the API that read them."""
