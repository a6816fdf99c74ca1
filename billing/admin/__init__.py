"""Admin pages of billing. Each module registers its pages when it is imported."""

from billing.admin import coupons, credits

__all__ = ["coupons", "credits"]
