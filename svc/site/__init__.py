"""Everything that is served besides the clients: health, version, the OpenAPI description and the pages."""
