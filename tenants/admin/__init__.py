"""Admin pages of who may do what: members, teams, keys, settings, and the log of changes."""

from tenants.admin import audit, invitations, keys, members, settings, teams

__all__ = ["audit", "invitations", "keys", "members", "settings", "teams"]
