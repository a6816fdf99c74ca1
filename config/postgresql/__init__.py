"""Django's PostgreSQL backend, whose connections are never those of a superuser."""
