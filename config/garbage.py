"""When Python looks for garbage in cycles, in every process of the service."""

import gc


def collect_seldom() -> None:
    """Call it before the imports, of which there are many.

    A batch makes tens of thousands of short-lived objects without cycles, and a start hundreds of
    thousands that stay. Looking for cycles among them as often as Python does by default took two
    fifths of a web process's time, and a tenth of any start.
    """
    gc.set_threshold(200_000, 50, 50)
