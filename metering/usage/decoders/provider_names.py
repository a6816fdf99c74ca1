"""Which provider an instrumentation or a gateway means: each has spellings of its own.

The same call reported twice is recognized by provider and response id, so both reports must end up
with one spelling. The names on the right are those of the price catalogue.
"""

from typing import Final

_NAMES: Final[dict[str, str]] = {
    "anthropic": "anthropic",
    "anthropic_text": "anthropic",
    "claude": "anthropic",
    "openai": "openai",
    "openai_chat": "openai",
    "text-completion-openai": "openai",
    "custom_openai": "openai",
    "azure": "azure",
    "azure_ai": "azure",
    "azure_text": "azure",
    "azure-openai": "azure",
    "azure_openai": "azure",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.openai": "azure",
    "az.ai.inference": "azure",
    "aws": "aws",
    "aws.bedrock": "aws",
    "aws_bedrock": "aws",
    "amazon-bedrock": "aws",
    "amazon_bedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "bedrock_mantle": "aws",
    "google": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "google.generative-ai": "google",
    "google.vertex": "google",
    "googleai": "google",
    "gemini": "google",
    "vertexai": "google",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gcp.vertex.agent": "google",
    "mistral": "mistral",
    "mistralai": "mistral",
    "mistral_ai": "mistral",
    "codestral": "mistral",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "groq": "groq",
    "perplexity": "perplexity",
    "x_ai": "x-ai",
    "x-ai": "x-ai",
    "xai": "x-ai",
    "grok": "x-ai",
    "together": "together",
    "together_ai": "together",
    "togetherai": "together",
    "together-ai": "together",
    "fireworks": "fireworks",
    "fireworks_ai": "fireworks",
    "fireworks-ai": "fireworks",
    "openrouter": "openrouter",
    "cerebras": "cerebras",
    "moonshot": "moonshotai",
    "moonshot_ai": "moonshotai",
    "moonshotai": "moonshotai",
    "voyage": "voyageai",
    "voyageai": "voyageai",
    "github_copilot": "github-copilot",
    "meta_llama": "meta",
}
# Frameworks and gateways that put their own name where the provider's belongs.
_NO_PROVIDERS: Final = frozenset(
    {
        "_other",
        "agno",
        "autogen",
        "crewai",
        "custom",
        "haystack",
        "langchain",
        "langgraph",
        "litellm",
        "litellm_proxy",
        "llama_index",
        "llamaindex",
        "microsoft.agent_framework",
        "pydantic-ai",
        "pydantic_ai",
        "semantic_kernel",
        "traceloop",
        "unknown",
        "vercel",
    }
)


def canonical_provider(given: object) -> str | None:
    """Return the catalogue's name of a provider; one that no one knows keeps its own, in lower
    case.
    """
    if not isinstance(given, str):
        return None
    written = given.strip().lower()
    if not written or written in _NO_PROVIDERS:
        return None
    if written in _NAMES:
        return _NAMES[written]
    # Vercel's SDK writes the provider and its interface: `openai.responses`, `google.vertex.chat`.
    head, _, _ = written.rpartition(".")
    while head:
        if head in _NAMES:
            return _NAMES[head]
        head, _, _ = head.rpartition(".")
    return written[:200]
