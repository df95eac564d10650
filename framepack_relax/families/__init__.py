"""Name -> loaded `VideoModel`: where weights come from, token layout, the attention processor."""
