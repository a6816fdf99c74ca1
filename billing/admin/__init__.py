"""Admin pages of billing. Customers and plans are shown here and changed on their own pages.

Each module registers its pages when it is imported.
"""

from billing.admin import coupons, credits, customers, plans, statements

__all__ = ["coupons", "credits", "customers", "plans", "statements"]
