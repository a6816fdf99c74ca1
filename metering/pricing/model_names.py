"""Which model of the price library a call's provider and model names mean.

The library's own matching comes first, with its fallbacks from a reseller to the maker. What it
does not find is tried by the other ways in which tools spell the same names. A model that several
hosts sell at prices of their own is never priced as another host's.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Final, NamedTuple

from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from genai_prices.types import ModelInfo, Provider

# Clients name models freely; this many answers are remembered and no more.
NAMES_REMEMBERED: Final = 8192

_PROVIDER_BY_ALIAS: Final = {
    "gcp.gen_ai": "google",
    "x_ai": "x-ai",
    "z.ai": "zai",
    "z_ai": "zai",
    "azure_ai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.inference": "azure",
    "fireworks_ai": "fireworks",
    "fireworks-ai": "fireworks",
    "together.ai": "together",
    "togetherai": "together",
    "openrouter.ai": "openrouter",
    "groq.com": "groq",
    "zhipu": "zhipuai",
}
# Their models are sold at the maker's price wherever they are reached, so that a gateway's name is
# no obstacle. Open weights are excepted: every host sells those at its own price.
_SOLD_AT_MAKERS_PRICE: Final = ("openai", "anthropic", "google", "x-ai")
_OPEN_WEIGHTS: Final = ("gpt-oss", "gemma")
_BEDROCK_NAME: Final = re.compile(
    r"^(?:[a-z]+\.)?(?:ai21|amazon|anthropic|cohere|deepseek|meta|mistral|openai|qwen)\."
)

# How alike two names are that differ by a slip, as `difflib` counts it.
_SLIP_RATIO: Final = 0.85
_DIGITS: Final = re.compile(r"[0-9]+")
_DATE_OR_LATEST: Final = re.compile(r"[-@](?:20[0-9]{2}-?[01][0-9]-?[0-3][0-9]|latest)$")


class CatalogueModel(NamedTuple):
    """A model of the catalogue. Variants by context apply only where its maker itself sells it; a
    reseller at the maker's price has variants of its own.
    """

    provider: str
    model: str
    has_variants: bool
    reseller: str = ""


@lru_cache(maxsize=NAMES_REMEMBERED)
def find_model(provider: str | None, model: str) -> CatalogueModel | None:
    """Return the catalogue's model, or None when no price can be told with certainty."""
    name = model.lower().strip()
    known = find_provider(provider)
    if known is None and _is_gateway(provider):
        known, name = _strip_gateway_prefix(provider, name)
    seller = known or (_maker(name) if _is_gateway(provider) else None)
    if seller is not None and (model_info := _model_of(seller, name)):
        return _catalogued(seller, model_info)
    if known is None and _is_gateway(provider) and _BEDROCK_NAME.match(name):
        return find_model("aws", name)
    return _at_makers_price(name)


def near_model(provider: str | None, model: str | None) -> str:
    """Return a question that names the model nearest to a misspelled name, with a space before it;
    "" if none is near.
    """
    near = nearest_model(provider or None, model) if model else None
    return f" Did you mean {near!r}?" if near is not None else ""


@lru_cache(maxsize=NAMES_REMEMBERED)
def nearest_model(provider: str | None, model: str) -> str | None:
    """Return the catalogue's model whose name differs by a slip, and which has a price where this
    has none. The numbers in both are the same: another version is another model.
    """
    bare = _DATE_OR_LATEST.sub("", model.lower().strip().rpartition("/")[2])
    seller = find_provider(provider)
    names = _names_by_digits(seller.id if seller else None).get(_digits(bare), ())
    for name in get_close_matches(bare, names, cutoff=_SLIP_RATIO):
        if name != bare and find_model(provider, name) is not None:
            return name
    return None


@cache
def _names_by_digits(provider_id: str | None) -> Mapping[str, list[str]]:
    """Return the names of a provider's models (None: of all providers), by the digits in them."""
    names: dict[str, dict[str, None]] = {}
    for provider in get_snapshot().providers:
        if provider_id in (None, provider.id):
            for model in provider.models:
                name = model.id.lower().rpartition("/")[2]
                names.setdefault(_digits(name), {})[name] = None
    return {digits: list(each) for digits, each in names.items()}


def _digits(name: str) -> str:
    return "".join(_DIGITS.findall(name))


@lru_cache(maxsize=NAMES_REMEMBERED)
def find_provider(provider: str | None) -> Provider | None:
    """Return the library's provider for an identifier, an OpenTelemetry name, or a host."""
    if not provider:
        return None
    name = provider.lower().strip()
    providers = get_snapshot().providers
    known = find_provider_by_id(providers, _PROVIDER_BY_ALIAS.get(name, name))
    if known is not None or "." not in name:
        return known
    url = name if "://" in name else f"https://{name}"
    return next((each for each in providers if re.match(each.api_pattern, url)), None)


@lru_cache(maxsize=NAMES_REMEMBERED)
def canonical_provider(provider: str | None, model: str | None) -> str:
    """One spelling for the provider whose response a call got, to know the same call again.

    A reseller passes on its maker's responses, and tools name either of the two, so both are
    spelled as the maker.
    """
    known = find_provider(provider)
    passes_on = _is_gateway(provider) if known is None else bool(known.fallback_model_providers)
    maker = _maker(model.lower()) if model and passes_on else None
    if maker is not None:
        return maker.id
    if known is None:
        return (provider or "").lower().strip()
    return "openai" if known.id == "azure" and passes_on else known.id


def _is_gateway(provider: str | None) -> bool:
    """Return whether a provider's name says nothing about who serves the model."""
    return not provider or provider.lower().strip() == "litellm"


def _strip_gateway_prefix(provider: str | None, name: str) -> tuple[Provider | None, str]:
    """`anthropic/claude-sonnet-4-5` names its provider, as LiteLLM writes it."""
    prefix, slash, rest = name.partition("/")
    if not slash:
        return None, name
    providers = get_snapshot().providers
    if provider is None:
        # Without LiteLLM's word for it, `mistralai/…` may be a name of the model's files.
        known = next((each for each in providers if each.id == prefix), None)
        known = known or find_provider_by_id(providers, _PROVIDER_BY_ALIAS.get(prefix, "-"))
    else:
        known = find_provider(prefix)
    return (known, rest) if known else (None, name)


def _maker(name: str) -> Provider | None:
    """Whose model the library takes a bare name for."""
    bare = name.rpartition("models/")[2]
    for provider in get_snapshot().providers:
        if provider.model_match is not None and provider.model_match.is_match(bare):
            return provider
    return None


def _model_of(seller: Provider, name: str) -> ModelInfo | None:
    """Return the library's answer, or the model with this very id if its patterns miss it."""
    providers = get_snapshot().providers
    # The name, then the name without the path before it.
    bare = (name.rpartition("models/")[2], name.removeprefix(f"{seller.id}/"))
    for reference in dict.fromkeys((name, *bare)):
        if model := seller.find_model(reference, all_providers=providers):
            return model
    return next((each for each in seller.models if each.id.lower() == name), None)


def _at_makers_price(name: str) -> CatalogueModel | None:
    bare = name.rpartition("/")[2]
    maker = _maker(bare)
    if maker is None or maker.id not in _SOLD_AT_MAKERS_PRICE:
        return None
    model = maker.find_model(bare)
    if model is None or any(word in model.id for word in _OPEN_WEIGHTS):
        return None
    return _catalogued(maker, model)


def _catalogued(seller: Provider, model_info: ModelInfo) -> CatalogueModel:
    owner, model = _owners()[id(model_info)]
    is_own = owner == seller.id
    return CatalogueModel(owner, model, has_variants=is_own, reseller="" if is_own else seller.id)


@cache
def _owners() -> dict[int, tuple[str, str]]:
    return {
        id(model): (provider.id, model.id)
        for provider in get_snapshot().providers
        for model in provider.models
    }
