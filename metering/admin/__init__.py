"""Admin pages of configuration: limits and prices; and of jobs, which have no other page yet.

Each module registers its pages when it is imported, so every one of them is named here.
"""

from metering.admin import breakers, budgets, jobs, prices, rate_limits, routes
