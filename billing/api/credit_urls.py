"""Addresses of credit, wallets, coupons and credit notes."""

from django.urls import path

from billing.api.coupons import Coupons
from billing.api.credit_notes import CreditNotes
from billing.api.credits import Credits
from billing.api.wallets import Wallets
from tenants.api.resources import LIST_AND_CREATE, SHOW, SHOW_AND_REMOVE, SHOW_CHANGE_AND_REMOVE

urlpatterns = [
    path("credits", Credits.as_view(LIST_AND_CREATE)),
    path("credits/<int:credit_id>", Credits.as_view(SHOW)),
    path("credits/<int:credit_id>/void", Credits.as_view({"post": "void"})),
    path("wallets", Wallets.as_view(LIST_AND_CREATE)),
    path("wallets/<int:wallet_id>", Wallets.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("coupons", Coupons.as_view(LIST_AND_CREATE)),
    path("coupons/<int:coupon_id>", Coupons.as_view(SHOW_AND_REMOVE)),
    path("credit-notes", CreditNotes.as_view(LIST_AND_CREATE)),
    path("credit-notes/<int:credit_note_id>", CreditNotes.as_view(SHOW)),
]
