"""The prediction log in PostgreSQL, feedback, the analytics queries, and the API that reads them."""
