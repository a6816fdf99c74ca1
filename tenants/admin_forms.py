"""Forms of the admin: of a row, which the domain judges, and a form as it was filled in."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.forms import ModelForm
from django.forms.models import BaseInlineFormSet
from unfold import widgets

# Django's own classes take type arguments for the type checker alone.
if TYPE_CHECKING:
    BaseRowForm = ModelForm[Any]
    RowFormSet = BaseInlineFormSet[Any, Any, Any]
else:
    BaseRowForm = ModelForm
    RowFormSet = BaseInlineFormSet


# Django's own widgets as the admin shows them.
LOOK: Final[Mapping[type[forms.Widget], type[forms.Widget]]] = {
    forms.TextInput: widgets.UnfoldAdminTextInputWidget,
    forms.TimeInput: widgets.UnfoldAdminTextInputWidget,
    forms.EmailInput: widgets.UnfoldAdminEmailInputWidget,
    forms.PasswordInput: widgets.UnfoldAdminPasswordWidget,
    forms.Textarea: widgets.UnfoldAdminTextareaWidget,
    forms.Select: widgets.UnfoldAdminSelectWidget,
    forms.CheckboxInput: widgets.UnfoldBooleanSwitchWidget,
    forms.CheckboxSelectMultiple: widgets.UnfoldAdminCheckboxSelectMultipleWidget,
}


class RowForm(BaseRowForm):
    """A form of a row, which the domain judges once each of its fields can be read."""

    # Where errors are shown of what has no field of that name.
    shown_at: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare()
        for field in self.fields.values():
            _dress(field)

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


def _dress(field: forms.Field) -> None:
    plain = field.widget
    look = LOOK.get(type(plain))
    if look is None:
        return
    kind = {"type": plain.input_type} if isinstance(plain, forms.widgets.Input) else {}
    field.widget = look(attrs={**plain.attrs, **kind})
    field.widget.is_required = plain.is_required
    if isinstance(plain, forms.Select | forms.CheckboxSelectMultiple):
        cast(Any, field.widget).choices = plain.choices


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
