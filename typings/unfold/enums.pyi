from enum import Enum

class ActionVariant(Enum):
    DEFAULT = "default"
    PRIMARY = "primary"
