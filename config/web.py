"""What a web process serves: `config.wsgi`, whose threads share their database connections."""

from config.connection_pool import share_between_threads
from config.wsgi import application

share_between_threads()

__all__ = ["application"]
