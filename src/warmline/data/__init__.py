"""From official files to packed batches. Knows nothing of models."""
