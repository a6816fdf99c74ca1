"""Which role may do what, and which scope an API key needs for it."""

from enum import StrEnum


class Role(StrEnum):
    """What a member of a tenant may do."""

    OWNER = "owner"
    ADMIN = "admin"
    FINANCE = "finance"
    ENGINEER = "engineer"
    VIEWER = "viewer"


class Scope(StrEnum):
    """What an API key may do."""

    INGEST = "ingest"
    ENFORCE = "enforce"
    READ = "read"
    MANAGE = "manage"
    BILLING = "billing"


ALL_SCOPES = [scope.value for scope in Scope]
# What each lets a key do.
SCOPE_WORDS = {
    Scope.INGEST: "report usage",
    Scope.ENFORCE: "ask before spending, halt an agent",
    Scope.READ: "read usage, budgets and events",
    Scope.MANAGE: "change budgets, prices, keys and teams",
    Scope.BILLING: "change customers, plans and statements",
}

# A person's scopes follow from the role, so that one table answers for pages, admin and API alike.
SCOPES_BY_ROLE: dict[Role, frozenset[Scope]] = {
    Role.OWNER: frozenset(Scope),
    Role.ADMIN: frozenset(Scope),
    Role.FINANCE: frozenset({Scope.READ, Scope.MANAGE, Scope.BILLING}),
    Role.ENGINEER: frozenset({Scope.READ, Scope.INGEST, Scope.ENFORCE}),
    Role.VIEWER: frozenset({Scope.READ}),
}

# Who may hand out access: keys, members and the tenant's settings.
ROLES_THAT_GRANT = frozenset({Role.OWNER, Role.ADMIN})
