"""Python side of medsearch: pixels, model export, embeddings and test data."""
