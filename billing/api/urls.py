"""Addresses of the API of billing."""

from django.urls import path

from billing.api.rating_preview import RatingPreviewView

urlpatterns = [
    path("rating-preview", RatingPreviewView.as_view()),
]
