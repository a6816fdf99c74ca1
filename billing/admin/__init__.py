"""Admin pages of billing. Links of customers and terms of plans are changed on their own pages.

Each module registers its pages when it is imported.
"""

from billing.admin import coupons, credits, customers, plans, statements

__all__ = ["coupons", "credits", "customers", "plans", "statements"]
