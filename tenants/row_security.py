"""Row-level security: the operation that migrations use, and the policy it installs."""

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from common.json_bodies import JsonObject

POLICY = "tenant_isolation"


def row_security_sql(table: str, *, column: str = "tenant_id") -> str:
    """SQL that shows a transaction only the rows of the tenant it set, the table's owner included.

    The settings are read in sub-selects so that they are evaluated once a statement, not once a
    row.
    After a commit the setting is an empty string, not NULL: nullif makes both mean "no rows".
    """
    return f"""
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
        ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
        DROP POLICY IF EXISTS {POLICY} ON {table};
        CREATE POLICY {POLICY} ON {table} USING (
            {column} = (SELECT nullif(current_setting('spendgate.tenant', true), '')::int)
            OR (SELECT nullif(current_setting('spendgate.platform', true), '')) IS NOT NULL
        );
    """


class ForceRowSecurity(Operation):
    """Migration operation: force row-level security on a table."""

    reversible = True

    def __init__(self, *tables: str, column: str = "tenant_id") -> None:
        self.tables = tables
        self.column = column

    def deconstruct(self) -> tuple[str, tuple[str, ...], JsonObject]:
        return self.__class__.__name__, self.tables, {"column": self.column}

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """The models do not change."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        for table in self.tables:
            schema_editor.execute(row_security_sql(table, column=self.column))

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        for table in self.tables:
            schema_editor.execute(f"DROP POLICY IF EXISTS {POLICY} ON {table}")
            schema_editor.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
            schema_editor.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")

    def describe(self) -> str:
        return f"Force row-level security on {', '.join(self.tables)}"
