"""The page that asks once more before a person's deed is done, and what it needs to know."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from django import forms
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.response import TemplateResponse

if TYPE_CHECKING:
    from unfold.admin import ModelAdmin

# The buttons of a form that was filled in, and of the question about it.
CONFIRMED: Final = "_confirmed"
EDITS: Final = "_edit"
PREVIEWS: Final = "_preview"
# What the page does not send on: the token is its own, and each button says what is wanted now.
_NOT_SENT_ON: Final = frozenset({"csrfmiddlewaretoken", "_save", CONFIRMED, EDITS, PREVIEWS})


class Question(NamedTuple):
    """What is about to be done, in words."""

    title: str
    verb: str
    consequence: str
    details: Sequence[tuple[str, str]] = ()
    # Where to go instead; a form that was filled in is shown again.
    back: str = ""
    # What the person may not have meant.
    warnings: Sequence[str] = ()


def question_about(title: str, warnings: Sequence[str]) -> Question | None:
    """The question about a form that may not mean what it says; None without warnings."""
    if not warnings:
        return None
    return Question(title, "Save anyway", "Nothing is saved yet.", warnings=warnings)


class Unconfirmed(Exception):
    """A form is valid, and the person has to be asked before it is written."""

    def __init__(self, question: Question) -> None:
        super().__init__(question.title)
        self.question = question


def sent(request: HttpRequest) -> QueryDict | None:
    """What a form was sent with; None while the question is only asked."""
    return request.POST if request.method == "POST" else None


def ask(
    page: "ModelAdmin",
    request: HttpRequest,
    *,
    question: Question,
    form: forms.Form | None = None,
) -> HttpResponse:
    """The question as a page. Nothing is done by a GET."""
    return _page(page, request, question, {"form": form})


def ask_about_form(page: "ModelAdmin", request: HttpRequest, question: Question) -> HttpResponse:
    """The question about a form that was sent: its fields come along, and are written or shown
    again as the person answers.
    """
    kept = [
        (name, value)
        for name, values in request.POST.lists()
        if name not in _NOT_SENT_ON
        for value in values
    ]
    return _page(page, request, question, {"kept": kept, "confirmed": CONFIRMED, "edits": EDITS})


def _page(
    page: "ModelAdmin", request: HttpRequest, question: Question, further: dict[str, object]
) -> HttpResponse:
    return TemplateResponse(
        request,
        "admin/confirm.html",
        {
            **page.admin_site.each_context(request),
            **question._asdict(),
            "opts": page.opts,
            **further,
        },
    )
