"""What the registry refuses or cannot do.

RegistryError
├── DatabaseUnavailable   no connection within the patience given
├── Busy                  another transaction holds what is needed
├── SchemaMismatch        the database is not of this version of Pushfan
├── NotFound              an app, channel, device or notification that is not there
├── AlreadyExists         a name that is taken
├── AlreadyPromoted       a pseudo user that is somebody by now
└── InvalidRegistration   a device, subscription or channel that cannot be stored
"""

from __future__ import annotations


class RegistryError(Exception):
    """The registry could not do what was asked."""


class DatabaseUnavailable(RegistryError):
    """PostgreSQL does not answer: check PUSHFAN_DATABASE_URL and that the server runs."""


class Busy(RegistryError):
    """Another transaction that is still open holds what is needed: try again."""


class SchemaMismatch(RegistryError):
    """The database does not hold the schema that this version of Pushfan needs."""


class NotFound(RegistryError):
    """What was named does not exist."""


class AlreadyExists(RegistryError):
    """The name is taken."""


class AlreadyPromoted(RegistryError):
    """The pseudo user has logged in: call it by its user's id."""


class InvalidRegistration(RegistryError):
    """What was given cannot be stored: the message names every problem, one in a line."""
