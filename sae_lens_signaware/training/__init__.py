"""SAELens's config from YAML, its runner with measures after it, and training on a cache."""
