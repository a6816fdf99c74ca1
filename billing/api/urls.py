"""Addresses of the API of billing."""

from billing.api import credit_urls

urlpatterns = [*credit_urls.urlpatterns]
