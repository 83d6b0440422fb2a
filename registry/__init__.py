"""What Pushfan remembers: the Python face of `schema.sql`, with every statement named in `queries/*.sql`."""
