"""Files of models: the catalog, the cache, downloads, hashes, safetensors and GGUF headers."""
