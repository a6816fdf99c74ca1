"""The attributes that a tenant maps to dimensions, as they are stored."""

from metering.models import AttributeMappings
from metering.usage.decoders.otlp.dimension_keys import AttributeMapping


def read_attribute_mappings(tenant_id: int) -> list[AttributeMapping]:
    """Return the tenant's mappings, those of a dimension in the order in which they count."""
    row = AttributeMappings.objects.filter(tenant_id=tenant_id).first()
    return [AttributeMapping(**mapping) for mapping in row.mappings] if row is not None else []
