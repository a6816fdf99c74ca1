"""Forms that ask for passwords. They judge what was typed; only the domain hashes."""

from typing import Any, Final

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from tenants.models import User

PASSWORD_CHARACTERS_MAX: Final = 1000


def password_field(label: str, *, is_new: bool = False) -> forms.CharField:
    kind = "new-password" if is_new else "current-password"
    return forms.CharField(
        label=label,
        strip=False,
        max_length=PASSWORD_CHARACTERS_MAX,
        widget=forms.PasswordInput(attrs={"autocomplete": kind}),
    )


class SignInForm(forms.Form):
    """An address and a password."""

    username = forms.CharField(label="Email address", max_length=254)
    password = password_field("Password")


class OwnPasswordForm(forms.Form):
    """The password of an account whose address is known."""

    password = password_field("Password")


class NewPasswordForm(forms.Form):
    """A new password, entered twice."""

    new_password1 = password_field("New password", is_new=True)
    new_password2 = password_field("New password again", is_new=True)

    def __init__(self, *args: Any, email: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._email = email

    def clean(self) -> dict[str, Any]:
        """Judge by Django's validators, with the address that the password must not resemble."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        first, second = data.get("new_password1"), data.get("new_password2")
        if first and second and first != second:
            self.add_error("new_password2", "The two passwords are not the same.")
        elif first and second:
            try:
                validate_password(first, User(email=self._email))
            except ValidationError as error:
                self.add_error("new_password1", error)
        return data


class ChangePasswordForm(NewPasswordForm):
    """One's own password: the old one and the new."""

    old_password = password_field("Old password")

    field_order = ("old_password", "new_password1", "new_password2")


class AddressForm(forms.Form):
    """An email address."""

    email = forms.EmailField(
        label="Email address",
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "username"}),
    )
