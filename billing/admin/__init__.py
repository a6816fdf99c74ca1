"""Admin pages of billing. They show; customers and plans are changed on their own pages.

Each module registers its pages when it is imported.
"""

from billing.admin import customers, plans, statements

__all__ = ["customers", "plans", "statements"]
