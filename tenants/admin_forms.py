"""Forms of the admin: of a row, which the domain judges, and a form as it was filled in."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.forms import ModelForm
from django.forms.models import BaseInlineFormSet

# Django's own classes take type arguments for the type checker alone.
if TYPE_CHECKING:
    BaseRowForm = ModelForm[Any]
    RowFormSet = BaseInlineFormSet[Any, Any, Any]
else:
    BaseRowForm = ModelForm
    RowFormSet = BaseInlineFormSet


class RowForm(BaseRowForm):
    """A form of a row, which the domain judges once each of its fields can be read."""

    # Where errors are shown of what has no field of that name.
    shown_at: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare()

    def prepare(self) -> None:
        """Complete the fields for this row, once they are made."""

    def judge(self) -> None:
        """Raise ValidationError with the domain's errors by field."""

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if not self.errors.keys() <= {NON_FIELD_ERRORS}:
            return
        try:
            self.judge()
        except ValidationError as error:
            # It says at the fields what a constraint says of the row.
            self.errors.pop(NON_FIELD_ERRORS, None)
            for name, errors in error.error_dict.items():
                field = name.partition(".")[0]
                self.add_error(self.shown_at.get(field, field), errors)


class FilledForm(NamedTuple):
    """A valid form of a row, with the forms of the rows within it."""

    form: Any
    formsets: Sequence[Any]
    is_change: bool

    @property
    def row(self) -> Any:
        """The row as it was, or a new one."""
        return self.form.instance

    @property
    def data(self) -> dict[str, Any]:
        """The values of its fields."""
        return cast(dict[str, Any], self.form.cleaned_data)
