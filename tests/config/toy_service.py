"""A supervised service without the application: quick to start, and easy to break.

python -m tests.config.toy_service [healthy | broken | unprepared | under-make]
"""

import sys

from config import child, supervisor
from config.child import Child, has_lived
from config.data_folder import SERVICE, DataFolderUnusable, own_data_folder
from config.environment import read_environment
from config.make_parent import MakeParent
from config.supervisor import Supervisor

SLEEPING = "import time; print('awake', flush=True); time.sleep(600)"
# Ignores being asked, and has a child of its own.
STUBBORN = (
    "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "subprocess.Popen(['sleep', '600']); time.sleep(600)"
)
FAILING = "import sys; sys.exit('no such planet')"


# As little patience as will do, for the tests' sake.
supervisor.LEFTOVER_SECONDS = 0.5
child.RESTART_MOST_SECONDS = 0.2


def python(name: str, program: str) -> Child:
    return Child(name, [sys.executable, "-c", program], judge=has_lived(0.2), stop_seconds=0.5)


def main(kind: str) -> int:
    children = [python("web", SLEEPING), python("worker", STUBBORN)]
    if kind == "broken":
        children.append(python("beat", FAILING))
    preparation = python("prepare", FAILING if kind == "unprepared" else "pass")
    environment = read_environment()
    try:
        with own_data_folder(environment.data_dir, purpose=SERVICE):
            return Supervisor(
                environment,
                children=children,
                preparation=preparation,
                parent=MakeParent() if kind == "under-make" else None,
            ).run()
    except DataFolderUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "healthy"))
