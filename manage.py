#!/usr/bin/env python
"""Management commands, on the running service's database, found by the same environment."""

import os
import sys

from config.garbage import collect_seldom

collect_seldom()

from django.core.management import execute_from_command_line

from config.command_database import database_for_command
from config.data_folder import DataFolderUnusable
from config.database_role import UnsafeRole
from config.embedded_postgres import PostgresFailed
from config.environment import WrongSetting, read_environment


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    try:
        with database_for_command(read_environment(), command):
            execute_from_command_line(sys.argv)
    except WrongSetting as error:
        return complain(error, code=2)
    except (DataFolderUnusable, PostgresFailed, UnsafeRole) as error:
        return complain(error, code=1)
    except KeyboardInterrupt:
        return 130
    return 0


def complain(error: Exception, *, code: int) -> int:
    sys.stderr.write(f"{error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
